/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The records of the taps. Fixed widths, padding as fields, units in names; all
 * integers in host byte order but for addresses. enforcer/taps/records.py has the
 * same records; their layouts are compared from BTF in a test and at every start.
 *
 * A record in a ring is one of the heads, then `captured_bytes` of payload, then
 * nothing of meaning up to the size of its tier.
 */
#ifndef HOLDFAST_EVENTS_H
#define HOLDFAST_EVENTS_H

#include <linux/types.h>

/* Payload a record has room for. One size for all would leave a 16 MiB ring with a thousand slots. */
#define TIER_1_BYTES 128
#define TIER_2_BYTES 512
#define TIER_3_BYTES 4096
#define SLICE_BYTES 16384

/* A 64 KiB segment is 4 slices; with BIG TCP (Documentation/networking/ip-sysctl) one may have 512 KiB. */
#define MAX_SEGMENT_SLICES 33
/* 16 MiB in one call. */
#define MAX_CALL_SLICES 1024

enum record_kind {
	RECORD_TCP_SLICE = 1,
	RECORD_TCP_GAP = 2,
	RECORD_TLS_OPENED = 3,
	RECORD_TLS_SLICE = 4,
	RECORD_TLS_CLOSED = 5,
	RECORD_TLS_CIPHER = 6, /* the first bytes that an object's BIO carried: evidence of its connection */
	RECORD_TLS_FD = 7,     /* the descriptor that an object was given, in `total` */
	RECORD_PROCESS_STARTED = 8,
	RECORD_PROCESS_ENDED = 9,
};

enum tcp_direction {
	TO_SERVER = 0,
	TO_CLIENT = 1,
};

enum tls_direction {
	TLS_READ = 0,
	TLS_WRITE = 1,
	TLS_BOTH = 2, /* of a BIO: it reads from the socket and writes to it */
};

/* `flags` of a tcp_record. */
enum tcp_flag {
	FLAG_FIN = 1,
	FLAG_SYN = 2,
	FLAG_RST = 4,
};

/* `detail` of a TCP_GAP. */
enum gap_reason {
	GAP_FRAGMENT = 0,
	GAP_UNREADABLE = 1,
};

/* `detail` of a TLS_OPENED. */
enum opened_how {
	OPENED_BEFORE = 0,
	OPENED_FROM_START = 1,
};

/* `detail` of a TLS_CLOSED. */
enum closed_how {
	CLOSED_SHUTDOWN = 0,
	CLOSED_FREED = 1,
};

/* `detail` of a TLS_SLICE. */
enum slice_how {
	SLICE_UNCONFIRMED = 0, /* copied at the call's entry, its return is not watched */
	SLICE_CONFIRMED = 1,
};

struct tcp_record {
	__u8 kind;
	__u8 direction;
	__u8 flags;
	__u8 detail;
	__u32 interface;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	/* From here to server_ip: the connection. */
	__u16 family; /* AF_INET or AF_INET6 */
	__u16 client_port;
	__u16 server_port;
	__u16 pad;
	__u32 client_ip[4]; /* network byte order; IPv4 in the first word, the others 0 */
	__u32 server_ip[4];
	__u32 sequence; /* of the first payload byte; with SYN the initial number */
	__u32 captured_bytes;
	__u32 missing_bytes; /* after the captured ones, in no other record */
	__u32 pad2;
};

struct tls_record {
	__u8 kind;
	__u8 direction;
	__u8 detail;
	__u8 pad;
	__u32 thread;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	/* From here to number: the object, beginning with its process. */
	__u32 pid;	     /* in the initial pid namespace */
	__u32 netns;	     /* inode; 0 = unknown */
	__u64 start_boot_ns; /* of the thread group's leader, CLOCK_BOOTTIME; 0 = unknown */
	__u64 cgroup;	     /* id in cgroup2 */
	__u64 pointer;	     /* the SSL object's */
	__u64 number;	     /* tells objects apart that have the same pointer one after the other */
	__u64 sequence;	     /* of the call among those of this object and direction that carried bytes */
	__u64 offset;	     /* of the payload in the call's bytes */
	__u64 total;	     /* bytes of the whole call */
	__u64 missing_bytes; /* after the captured ones, in no other record */
	__u32 captured_bytes;
	__u32 pad2;
};

/* Key 0 of `tap_settings`. */
struct tap_settings {
	__u32 capture_bytes; /* of a segment's payload; the rest is reported as missing */
	__u32 wake_bytes;    /* wake the reader once so much is unread; 0: at once */
};

/* Key 0 of `tls_settings`. A scope that is 0 does not restrict. */
struct tls_settings {
	__u64 scope_cgroup; /* this one and those below */
	__u32 scope_cgroup_level;
	__u32 scope_netns;
	__u32 scope_pids; /* 1: only processes with PID_WATCHED */
	__u32 wake_bytes;
	/* Where members lie in this kernel's structures, bytes; 0 = unknown. From its BTF, so that one
	 * source serves kernels and loaders that differ in what they know of types. */
	__u32 task_leader;
	__u32 task_start_boot;
	__u32 task_nsproxy;
	__u32 nsproxy_net;
	__u32 net_inum;
	__u32 pad;
};

/* Value of `tls_pids`. */
enum pid_rule {
	PID_WATCHED = 1,
	PID_IGNORED = 2, /* our own processes */
};

/* Index of `tap_counters` and `tls_counters`. Of what is lost, the records and at the next index their payload. */
enum counter {
	COUNT_TOTAL = 0,     /* packets on all interfaces; calls of all probes in scope */
	COUNT_DUPLICATE = 1, /* the second sight of a loopback packet; empty calls */
	COUNT_MATCHED = 2,   /* packets of a guarded port; calls that carried bytes */
	COUNT_CAPTURED = 3,  /* records given to the ring */
	COUNT_CAPTURED_BYTES = 4,
	LOST_RING_FULL = 5,
	LOST_RING_FULL_BYTES = 6,
	LOST_UNREADABLE = 7,
	LOST_UNREADABLE_BYTES = 8,
	LOST_FRAGMENT = 9,
	LOST_FRAGMENT_BYTES = 10,
	LOST_HEADERS = 11,
	LOST_HEADERS_BYTES = 12,
	LOST_TOO_LONG = 13,
	LOST_TOO_LONG_BYTES = 14,
	LOST_NO_STATE = 15,
	LOST_NO_STATE_BYTES = 16,
	COUNTERS = 17,
};

/* Key of `tls_objects` and `tls_bios`. The start time keeps a pid that is used again apart. */
struct pointer_key {
	__u64 start_boot_ns;
	__u64 pointer;
	__u32 pid;
	__u32 pad;
};

struct tls_object {
	__u64 number;
	__u64 read_calls;
	__u64 write_calls;
	__u32 read_evidence; /* RECORD_TLS_CIPHER so far */
	__u32 write_evidence;
	__u32 said_shutdown;
	__u32 pad;
};

struct tls_bio {
	__u64 ssl;
	__u64 number;	 /* of the object: a pointer that is used again is another */
	__u32 direction; /* TLS_READ: carries what came from the peer; TLS_BOTH */
	__u32 pad;
};

struct call_key {
	__u64 thread;
	__u64 function;
};

struct call {
	__u64 ssl;
	__u64 buffer;
	__u64 done_bytes_at; /* where the `_ex` forms put how much was done; 0: the return value says */
};

#endif
