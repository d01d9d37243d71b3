/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What differs between the two loaders. libbpf makes the maps from the object's
 * BTF. With BCC (which compiles this source at start, -DHOLDFAST_BCC), the loader
 * makes them first, from the same DECLARE_MAP and DECLARE_RING lines, and passes
 * each one's descriptor as -DFD_<name>; enforcer/taps/loading/bcc.py reads them, so
 * each stands on one line with a plain number of entries.
 */
#ifndef HOLDFAST_LOADER_H
#define HOLDFAST_LOADER_H

#ifdef HOLDFAST_BCC

#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ptrace.h>

#define SEC(name)
#define DECLARE_MAP(name, kind, key_type, value_type, entries, flags)
#define DECLARE_RING(name, bytes)
#define DECLARE_RECORD(name)
#define DECLARE_LICENSE /* BCC declares one of its own */
#define MAP(name) ((void *)bpf_pseudo_fd(1, FD_##name))

#else

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ptrace.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define DECLARE_MAP(name, kind, key_type, value_type, entries, flags)                                                  \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_##kind);                                                                     \
		__uint(max_entries, entries);                                                                          \
		__uint(map_flags, flags);                                                                              \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} name SEC(".maps")
#define DECLARE_RING(name, bytes)                                                                                      \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                                    \
		__uint(max_entries, bytes);                                                                            \
	} name SEC(".maps")
/* Has a record described in the object's BTF, which otherwise knows what maps hold only. */
#define DECLARE_RECORD(name) struct name *holdfast_##name __attribute__((unused))
#define DECLARE_LICENSE char LICENSE[] SEC("license") = "Dual BSD/GPL"
#define MAP(name) ((void *)&name)

#endif

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* Keeps the compiler from reasoning about a value whose bounds the verifier has to see checked. */
#define OPAQUE(value) asm volatile("" : "+r"(value))

#endif
