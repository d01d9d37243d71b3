// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * steer: new TCP connections to the guarded port go to the gate's listening
 * socket instead of the server's. Runs at the lookup of a listener, so a
 * connection that is already established is never touched.
 *
 * Fails closed: as long as the link stands and no gate listens (the kernel takes
 * a closed socket out of the sockmap by itself), connections are refused.
 *
 * UAPI types only: loads wherever sk_lookup has ingress_ifindex (Linux 5.17).
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "steer.h"

#define AF_INET 2
/* In every namespace: drivers/net/loopback.c insists on it. */
#define LOOPBACK_IFINDEX 1

/* maps */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, GATE_SOCKETS);
	__type(key, __u32);
	__type(value, __u64); /* reads back as the socket's cookie */
} gate SEC(".maps");

/* The gate's upstream connections while they are being made, by the whole tuple. A
 * source port alone could be borrowed.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct connection);
	__type(value, struct exemption);
} exempt SEC(".maps");

/* Connections steered while older ones are being destroyed: they look the same in
 * sock_diag, and must not be taken for old. One that falls out is cut off, no more.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct connection);
	__type(value, __u8);
} steered SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* helpers */

static __always_inline int count(__u32 outcome, int verdict)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &outcome);

	if (counter)
		*counter += 1;
	return verdict;
}

static __always_inline void read_connection(struct bpf_sk_lookup *ctx, struct connection *to)
{
	__builtin_memset(to, 0, sizeof(*to));
	if (ctx->family == AF_INET) {
		to->remote_ip[0] = ctx->remote_ip4;
		to->local_ip[0] = ctx->local_ip4;
	} else {
		to->remote_ip[0] = ctx->remote_ip6[0];
		to->remote_ip[1] = ctx->remote_ip6[1];
		to->remote_ip[2] = ctx->remote_ip6[2];
		to->remote_ip[3] = ctx->remote_ip6[3];
		to->local_ip[0] = ctx->local_ip6[0];
		to->local_ip[1] = ctx->local_ip6[1];
		to->local_ip[2] = ctx->local_ip6[2];
		to->local_ip[3] = ctx->local_ip6[3];
	}
	to->remote_port = bpf_ntohs(ctx->remote_port);
	to->local_port = ctx->local_port;
	to->family = ctx->family;
}

/* Whether the lookup is for the gate's own listening socket, which is bound to
 * 127.0.0.1 or ::1 and meant for nobody to find.
 */
static __always_inline int is_gate_port(struct bpf_sk_lookup *ctx, const struct settings *set)
{
	if (ctx->family == AF_INET)
		return set->gate_port_ip4 && ctx->local_port == set->gate_port_ip4 &&
		       ctx->local_ip4 == bpf_htonl(INADDR_LOOPBACK);
	return set->gate_port_ip6 && ctx->local_port == set->gate_port_ip6 && !ctx->local_ip6[0] &&
	       !ctx->local_ip6[1] && !ctx->local_ip6[2] && ctx->local_ip6[3] == bpf_htonl(1);
}

/* programs */

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	__u32 zero = 0, index = ctx->family == AF_INET ? GATE_IP4 : GATE_IP6;
	struct connection connection;
	struct exemption *exemption;
	struct settings *set;
	struct bpf_sock *sk;
	__u8 noted = 1;
	long err;

	set = bpf_map_lookup_elem(&settings, &zero);
	if (!set || ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	if (is_gate_port(ctx, set))
		return count(OUTCOME_GATE_PORT, SK_DROP);
	if (!set->guarded_port || ctx->local_port != set->guarded_port)
		return SK_PASS;

	read_connection(ctx, &connection);
	exemption = bpf_map_lookup_elem(&exempt, &connection);
	if (exemption && (ctx->ingress_ifindex == LOOPBACK_IFINDEX || ctx->ingress_ifindex == exemption->interface)) {
		exemption->used = 1;
		return count(OUTCOME_EXEMPT, SK_PASS);
	}

	sk = bpf_map_lookup_elem(&gate, &index);
	if (!sk)
		return set->fail_open ? count(OUTCOME_FAILED_OPEN, SK_PASS) : count(OUTCOME_NO_GATE, SK_DROP);
	/* REPLACE: a program attached before us may have chosen a socket. */
	err = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_REPLACE);
	bpf_sk_release(sk);
	if (err)
		return count(OUTCOME_UNASSIGNABLE, SK_DROP);
	if (set->sweeping)
		bpf_map_update_elem(&steered, &connection, &noted, BPF_ANY);
	return count(OUTCOME_STEERED, SK_PASS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
