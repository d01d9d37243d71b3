/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What steer.bpf.c shares with the process that loads it. Fixed widths, padding
 * as fields. enforcer/kernel/records.py has the same records; their layouts are
 * compared from BTF in a test and at every start.
 */
#ifndef HOLDFAST_STEER_H
#define HOLDFAST_STEER_H

#include <linux/types.h>

/* One per instance, key 0 of the map `settings`. Written before the link exists. */
struct settings {
	__u16 guarded_port;  /* host byte order; 0 steers nothing */
	__u16 gate_port_ip4; /* the gate's own loopback ports: nobody may connect to them, */
	__u16 gate_port_ip6; /* they exist only to be steered to; 0 = none */
	__u8 fail_open;	     /* 1: without a gate the server answers (policy `fail = "open"`) */
	__u8 sweeping;	     /* 1: note each steered connection in `steered` (see there) */
};

/* A connection as the server's end sees it. IPv4 addresses stand in the first
 * word, the others are 0. All in network byte order but for the ports' host order.
 */
struct connection {
	__u32 remote_ip[4];
	__u32 local_ip[4];
	__u16 remote_port;
	__u16 local_port;
	__u32 family;
};

/* One of the gate's own connections to the server while it is made. It must come by
 * the loopback interface or by `interface`: the one that has the address, which is
 * what the kernel reports for packets to an address of its own (ip_route_output:
 * orig_oif; ipv6_rcv: iif).
 */
struct exemption {
	__u32 interface;
	__u32 used; /* set by the program: the connection did pass */
};

/* Index of the map `counters`; a lookup is counted once. */
enum outcome {
	OUTCOME_STEERED = 0,	  /* given to the gate */
	OUTCOME_EXEMPT = 1,	  /* the gate's own connection to the server */
	OUTCOME_NO_GATE = 2,	  /* refused: no gate listens */
	OUTCOME_FAILED_OPEN = 3,  /* no gate listens and the policy says: open */
	OUTCOME_GATE_PORT = 4,	  /* refused: somebody knocked at the gate's own port */
	OUTCOME_UNASSIGNABLE = 5, /* refused: the kernel did not take the gate's socket */
	OUTCOMES = 6,
};

/* Key of the map `gate`. */
enum gate_socket {
	GATE_IP4 = 0,
	GATE_IP6 = 1,
	GATE_SOCKETS = 2,
};

#endif
