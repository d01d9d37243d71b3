// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * tap: copies the TCP payload of the guarded ports into a ring. A filter of one
 * packet socket that is bound to no interface, and so sees every interface of its
 * namespace, later ones too. It returns 0: nothing is queued on the socket, and
 * it cannot delay a packet.
 *
 * The socket is SOCK_DGRAM: packets begin at the network header, whatever the
 * link. Checksums are not looked at, fragments are not put together; what that
 * hides is counted or shows as bytes that contradict each other.
 *
 * UAPI types only.
 */
#include "loader.h"
#include "events.h"

#define AF_INET 2
#define AF_INET6 10
#define PACKET_OUTGOING 4
/* In every namespace: drivers/net/loopback.c insists on it. */
#define LOOPBACK_IFINDEX 1
/* RFC 8200, 4; include/uapi/linux/in6.h, which is not among every set of headers */
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_DESTINATION 60
#define MAX_EXTENSIONS 8 /* IPv6 headers before TCP */

/* maps */

DECLARE_MAP(tap_settings, ARRAY, __u32, struct tap_settings, 1, 0);
DECLARE_MAP(tap_ports, HASH, __u32, __u32, 256, 0);
DECLARE_MAP(tap_counters, ARRAY, __u32, __u64, 17, BPF_F_MMAPABLE);
DECLARE_RING(tap_ring, 16777216);
DECLARE_RECORD(tcp_record);

/* helpers */

/* What was read of a packet's headers. Offsets count from the start of the network header. */
struct packet {
	__u32 at;  /* of the header that comes next */
	__u32 end; /* of the IP packet */
	__u32 protocol;
	__u32 fragment; /* 1: the first of several, 2: another */
};

static __always_inline void add(__u32 counter, __u64 amount)
{
	__u64 *value = bpf_map_lookup_elem(MAP(tap_counters), &counter);

	if (value)
		__sync_fetch_and_add(value, amount);
}

static __always_inline void lose(__u32 reason, __u64 bytes)
{
	add(reason, 1);
	add(reason + 1, bytes);
}

static __always_inline __u32 load16(struct __sk_buff *skb, __u32 at)
{
	__u16 value = 0;

	bpf_skb_load_bytes(skb, at, &value, sizeof(value));
	return bpf_ntohs(value);
}

static __always_inline __u32 load8(struct __sk_buff *skb, __u32 at)
{
	__u8 value = 0;

	bpf_skb_load_bytes(skb, at, &value, sizeof(value));
	return value;
}

/* RFC 791. 0, or -1 where these bytes are no IPv4 header. */
static __always_inline int read_ip4(struct __sk_buff *skb, struct packet *packet, struct tcp_record *head)
{
	__u32 first = load8(skb, packet->at), header = (first & 15) * 4, total = load16(skb, packet->at + 2);
	__u32 offset = load16(skb, packet->at + 6);

	if (first >> 4 != 4 || header < 20)
		return -1;
	packet->end = packet->at + total;
	if (!total || packet->end > skb->len) /* 0: larger than the field can say (BIG TCP) */
		packet->end = skb->len;
	packet->protocol = load8(skb, packet->at + 9);
	if (offset & 0x3fff) /* more fragments, or an offset */
		packet->fragment = offset & 0x1fff ? 2 : 1;
	head->family = AF_INET;
	bpf_skb_load_bytes(skb, packet->at + 12, head->client_ip, 4);
	bpf_skb_load_bytes(skb, packet->at + 16, head->server_ip, 4);
	packet->at += header;
	return 0;
}

/* RFC 8200. 0; -1 where these bytes are no IPv6 header; -2 where its extensions could not be followed. */
static __always_inline int read_ip6(struct __sk_buff *skb, struct packet *packet, struct tcp_record *head)
{
	__u32 total = load16(skb, packet->at + 4), next = load8(skb, packet->at + 6);

	if (load8(skb, packet->at) >> 4 != 6)
		return -1;
	packet->end = packet->at + 40 + total;
	if (!total || packet->end > skb->len) /* 0: a jumbogram (RFC 2675) */
		packet->end = skb->len;
	head->family = AF_INET6;
	bpf_skb_load_bytes(skb, packet->at + 8, head->client_ip, 16);
	bpf_skb_load_bytes(skb, packet->at + 24, head->server_ip, 16);
	packet->at += 40;
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		__u32 length = load8(skb, packet->at + 1);

		packet->protocol = next;
		if (next == NEXT_FRAGMENT) {
			__u32 offset = load16(skb, packet->at + 2);

			if (offset & 0xfff9)
				packet->fragment = offset & 0xfff8 ? 2 : 1;
			next = load8(skb, packet->at);
			packet->protocol = next;
			if (packet->fragment == 2)
				return 0;
			packet->at += 8;
		} else if (next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_DESTINATION) {
			next = load8(skb, packet->at);
			packet->at += (length + 1) * 8;
		} else if (next == IPPROTO_AH) { /* RFC 4302, 2.2: in words, minus 2 */
			next = load8(skb, packet->at);
			packet->at += (length + 2) * 4;
		} else {
			return 0;
		}
	}
	return -2;
}

/* Where the IP header begins: behind IEEE 802.1Q tags that no hardware took off. An outgoing packet may have its tag in
 * front of the network header instead, while its protocol still names the tag: so what is there must look like the
 * packet it says it is. Returns ETH_P_IP, ETH_P_IPV6, or 0.
 */
static __always_inline __u32 find_network(struct __sk_buff *skb, __u32 *at)
{
	__u32 protocol = bpf_ntohs(skb->protocol), first;

	if (protocol == ETH_P_8021Q || protocol == ETH_P_8021AD) {
		first = load8(skb, 0) >> 4;
		if (first == 4 && load16(skb, 2) == skb->len)
			return ETH_P_IP;
		if (first == 6 && load16(skb, 4) + 40 == skb->len)
			return ETH_P_IPV6;
		protocol = load16(skb, 2);
		*at = 4;
		if (protocol == ETH_P_8021Q || protocol == ETH_P_8021AD) {
			protocol = load16(skb, 6);
			*at = 8;
		}
	}
	return protocol == ETH_P_IP || protocol == ETH_P_IPV6 ? protocol : 0;
}

static __always_inline int read_network(struct __sk_buff *skb, struct packet *packet, struct tcp_record *head)
{
	__u32 protocol = find_network(skb, &packet->at);

	if (protocol == ETH_P_IP)
		return read_ip4(skb, packet, head);
	if (protocol == ETH_P_IPV6)
		return read_ip6(skb, packet, head);
	return -1;
}

static __always_inline __u32 guarded(__u32 port)
{
	return bpf_map_lookup_elem(MAP(tap_ports), &port) ? 1 : 0;
}

/* Turn source and destination into client and server. 0 where the port is not ours. */
static __always_inline int match(struct tcp_record *head, __u32 source, __u32 destination)
{
	__u32 swap;

	/* Where both ports are guarded, the lower one is the server's: both directions then say the same. */
	if (guarded(destination) && (!guarded(source) || destination <= source)) {
		head->direction = TO_SERVER;
		head->client_port = source;
		head->server_port = destination;
		return 1;
	}
	if (!guarded(source))
		return 0;
	head->direction = TO_CLIENT;
	head->client_port = destination;
	head->server_port = source;
	for (int i = 0; i < 4; i++) {
		swap = head->client_ip[i];
		head->client_ip[i] = head->server_ip[i];
		head->server_ip[i] = swap;
	}
	return 1;
}

static __always_inline __u64 wake(__u32 wake_bytes)
{
	if (!wake_bytes)
		return 0;
	return bpf_ringbuf_query(MAP(tap_ring), BPF_RB_AVAIL_DATA) >= wake_bytes ? BPF_RB_FORCE_WAKEUP
										 : BPF_RB_NO_WAKEUP;
}

static __always_inline void give_tier(struct __sk_buff *skb, __u32 at, struct tcp_record *head, __u32 wake_bytes,
				      const __u32 tier)
{
	struct tcp_record *record = bpf_ringbuf_reserve(MAP(tap_ring), sizeof(*head) + tier, 0);
	__u64 size = head->captured_bytes;

	if (!record) {
		lose(LOST_RING_FULL, size);
		return;
	}
	*record = *head;
	OPAQUE(size);
	if (size > tier) { /* never: `give` chose the tier. The verifier wants to see it. */
		bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
		return;
	}
	if (size > 0 && bpf_skb_load_bytes(skb, at, record + 1, size)) {
		lose(LOST_UNREADABLE, size);
		record->kind = RECORD_TCP_GAP;
		record->detail = GAP_UNREADABLE;
		record->captured_bytes = 0;
		size = 0;
	}
	bpf_ringbuf_submit(record, wake(wake_bytes));
	add(COUNT_CAPTURED, 1);
	add(COUNT_CAPTURED_BYTES, size);
}

static __always_inline void give(struct __sk_buff *skb, __u32 at, struct tcp_record *head, __u32 wake_bytes)
{
	if (head->captured_bytes <= TIER_1_BYTES)
		give_tier(skb, at, head, wake_bytes, TIER_1_BYTES);
	else if (head->captured_bytes <= TIER_2_BYTES)
		give_tier(skb, at, head, wake_bytes, TIER_2_BYTES);
	else if (head->captured_bytes <= TIER_3_BYTES)
		give_tier(skb, at, head, wake_bytes, TIER_3_BYTES);
	else
		give_tier(skb, at, head, wake_bytes, SLICE_BYTES);
}

static __always_inline void give_whole(struct __sk_buff *skb, __u32 at, const struct tcp_record *head, __u32 wake_bytes)
{
	struct tcp_record *record = bpf_ringbuf_reserve(MAP(tap_ring), sizeof(*head) + SLICE_BYTES, 0);

	if (!record) {
		lose(LOST_RING_FULL, SLICE_BYTES);
		return;
	}
	*record = *head;
	if (!bpf_skb_load_bytes(skb, at, record + 1, SLICE_BYTES)) {
		record->captured_bytes = SLICE_BYTES;
		add(COUNT_CAPTURED_BYTES, SLICE_BYTES);
	} else {
		record->kind = RECORD_TCP_GAP;
		record->detail = GAP_UNREADABLE;
		lose(LOST_UNREADABLE, SLICE_BYTES);
	}
	bpf_ringbuf_submit(record, wake(wake_bytes));
	add(COUNT_CAPTURED, 1);
}

/* programs */

SEC("socket")
int tap(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct tcp_record head = {};
	struct tap_settings *set;
	__u32 zero = 0, header, flags, payload, capture, wanted, sequence = 0;
	int read;

	set = bpf_map_lookup_elem(MAP(tap_settings), &zero);
	if (!set)
		return 0;
	add(COUNT_TOTAL, 1);
	if (skb->ifindex == LOOPBACK_IFINDEX && skb->pkt_type == PACKET_OUTGOING) {
		add(COUNT_DUPLICATE, 1); /* it comes again on its way in */
		return 0;
	}
	read = read_network(skb, &packet, &head);
	if (read == -2)
		lose(LOST_HEADERS, packet.end - packet.at);
	if (read || packet.protocol != IPPROTO_TCP)
		return 0;
	if (packet.fragment == 2) { /* has no ports */
		lose(LOST_FRAGMENT, packet.end > packet.at ? packet.end - packet.at : 0);
		return 0;
	}
	if (packet.at + 20 > packet.end) {
		lose(LOST_HEADERS, 0);
		return 0;
	}
	if (!match(&head, load16(skb, packet.at), load16(skb, packet.at + 2)))
		return 0;
	add(COUNT_MATCHED, 1);

	/* RFC 9293, 3.1 */
	bpf_skb_load_bytes(skb, packet.at + 4, &sequence, sizeof(sequence));
	head.sequence = bpf_ntohl(sequence);
	header = (load8(skb, packet.at + 12) >> 4) * 4;
	flags = load8(skb, packet.at + 13) & (FLAG_FIN | FLAG_SYN | FLAG_RST);
	head.interface = skb->ifindex;
	head.time_ns = bpf_ktime_get_ns();
	if (packet.fragment == 1) {
		lose(LOST_FRAGMENT, packet.end - packet.at - 20);
		head.kind = RECORD_TCP_GAP;
		head.detail = GAP_FRAGMENT;
		give_tier(skb, 0, &head, set->wake_bytes, TIER_1_BYTES);
		return 0;
	}
	if (header < 20 || packet.at + header > packet.end) {
		lose(LOST_HEADERS, 0);
		return 0;
	}
	payload = packet.end - packet.at - header;
	packet.at += header;
	capture = set->capture_bytes;
	wanted = payload < capture ? payload : capture;
	head.kind = RECORD_TCP_SLICE;
	head.flags = flags & FLAG_SYN;
	if (!payload && !flags)
		return 0; /* an acknowledgement */

	/* Whole slices first: the loop is what the verifier walks again and again, so it has one size only. */
	for (__u64 i = 0; i < MAX_SEGMENT_SLICES - 1; i++) {
		OPAQUE(i); /* else some compilers count another way round, which is beyond the verifier */
		if (wanted <= SLICE_BYTES)
			break;
		give_whole(skb, packet.at, &head, set->wake_bytes);
		wanted -= SLICE_BYTES;
		payload -= SLICE_BYTES;
		packet.at += SLICE_BYTES;
		/* The initial number counts as one byte (RFC 9293, 3.4). */
		head.sequence += SLICE_BYTES + (head.flags & FLAG_SYN ? 1 : 0);
		head.flags = 0;
	}
	head.captured_bytes = wanted > SLICE_BYTES ? SLICE_BYTES : wanted;
	head.missing_bytes = payload - head.captured_bytes;
	head.flags |= flags;
	give(skb, packet.at, &head, set->wake_bytes);
	return 0;
}

DECLARE_LICENSE;
