// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * tls: copies the plaintext that OpenSSL's callers read and write, and what tells
 * which connection an SSL object speaks on: the descriptor it was given, and the
 * first ciphertext its BIOs carried.
 *
 * Bytes are copied when a call returns: only then is it known whether it took or
 * gave any, and how many (a retry after WANT_WRITE repeats the buffer), and the
 * pages are in memory. The buffer is the caller's, who has not run since. Where
 * returns must not be probed, ssl_write_only copies at entry and says so.
 *
 * SSL_peek has no probe: what is peeked at is read later.
 *
 * UAPI types only; kernel structures by offsets from user space (tls_settings).
 */
#include "loader.h"
#include "events.h"

/* Enough of each direction to tell a handshake and what follows it from any other. */
#define MAX_EVIDENCE 4
#define EVIDENCE_BYTES 64
/* A memory BIO may be given pieces shorter than this; they tell nothing. */
#define MIN_EVIDENCE_BYTES 32

#define SAME_CALL_NS 50000

enum function {
	FUNCTION_READ = 1,
	FUNCTION_WRITE = 2,
};

/* maps */

DECLARE_MAP(tls_settings, ARRAY, __u32, struct tls_settings, 1, 0);
DECLARE_MAP(tls_pids, HASH, __u32, __u32, 16384, BPF_F_NO_PREALLOC);
DECLARE_MAP(tls_counters, ARRAY, __u32, __u64, 17, BPF_F_MMAPABLE);
DECLARE_MAP(tls_calls, LRU_HASH, struct call_key, struct call, 16384, 0);
DECLARE_MAP(tls_objects, LRU_HASH, struct pointer_key, struct tls_object, 65536, 0);
DECLARE_MAP(tls_bios, LRU_HASH, struct pointer_key, struct tls_bio, 131072, 0);
DECLARE_RING(tls_ring, 16777216);
DECLARE_RECORD(tls_record);

/* helpers */

static __always_inline void add(__u32 counter, __u64 amount)
{
	__u64 *value = bpf_map_lookup_elem(MAP(tls_counters), &counter);

	if (value)
		__sync_fetch_and_add(value, amount);
}

static __always_inline void lose(__u32 reason, __u64 bytes)
{
	add(reason, 1);
	add(reason + 1, bytes);
}

static __always_inline struct tls_settings *settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(MAP(tls_settings), &zero);
}

static __always_inline __u64 load_pointer(__u64 base, __u32 offset)
{
	__u64 value = 0;

	if (base)
		bpf_probe_read_kernel(&value, sizeof(value), (void *)(base + offset));
	return value;
}

/* The namespace of the task; 0 where this kernel's layout is not known. */
static __always_inline __u32 netns_of(__u64 task, const struct tls_settings *set)
{
	__u64 net = 0;
	__u32 inum = 0;

	if (set->task_nsproxy)
		net = load_pointer(load_pointer(task, set->task_nsproxy), set->nsproxy_net);
	if (net)
		bpf_probe_read_kernel(&inum, sizeof(inum), (void *)(net + set->net_inum));
	return inum;
}

static __always_inline __u64 start_of(__u64 task, const struct tls_settings *set)
{
	return set->task_leader ? load_pointer(load_pointer(task, set->task_leader), set->task_start_boot) : 0;
}

/* Fill in who is calling. 0 where that is out of scope. */
static __always_inline int identify(const struct tls_settings *set, struct tls_record *head)
{
	__u64 id = bpf_get_current_pid_tgid(), task = bpf_get_current_task();
	__u32 pid = id >> 32, *rule;

	rule = bpf_map_lookup_elem(MAP(tls_pids), &pid);
	if (rule && *rule == PID_IGNORED)
		return 0;
	if (set->scope_pids && !rule)
		return 0;
	if (set->scope_cgroup && bpf_get_current_ancestor_cgroup_id(set->scope_cgroup_level) != set->scope_cgroup)
		return 0;
	head->netns = netns_of(task, set);
	if (set->scope_netns && head->netns && head->netns != set->scope_netns)
		return 0;
	head->pid = pid;
	head->thread = id;
	head->cgroup = bpf_get_current_cgroup_id();
	head->start_boot_ns = start_of(task, set);
	head->time_ns = bpf_ktime_get_ns();
	return 1;
}

static __always_inline void make_key(const struct tls_record *head, __u64 pointer, struct pointer_key *key)
{
	key->start_boot_ns = head->start_boot_ns;
	key->pointer = pointer;
	key->pid = head->pid;
	key->pad = 0;
}

static __always_inline __u64 wake(const struct tls_settings *set)
{
	if (!set->wake_bytes)
		return 0;
	return bpf_ringbuf_query(MAP(tls_ring), BPF_RB_AVAIL_DATA) >= set->wake_bytes ? BPF_RB_FORCE_WAKEUP
										      : BPF_RB_NO_WAKEUP;
}

static __always_inline void give_tier(__u64 from, struct tls_record *head, const struct tls_settings *set,
				      const __u32 tier)
{
	struct tls_record *record = bpf_ringbuf_reserve(MAP(tls_ring), sizeof(*head) + tier, 0);
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
	if (size && bpf_probe_read_user(record + 1, size, (void *)from)) {
		lose(LOST_UNREADABLE, size);
		record->missing_bytes += size;
		record->captured_bytes = 0;
		size = 0;
	}
	bpf_ringbuf_submit(record, wake(set));
	add(COUNT_CAPTURED, 1);
	add(COUNT_CAPTURED_BYTES, size);
}

static __always_inline void give(__u64 from, struct tls_record *head, const struct tls_settings *set)
{
	if (head->captured_bytes <= TIER_1_BYTES)
		give_tier(from, head, set, TIER_1_BYTES);
	else if (head->captured_bytes <= TIER_2_BYTES)
		give_tier(from, head, set, TIER_2_BYTES);
	else if (head->captured_bytes <= TIER_3_BYTES)
		give_tier(from, head, set, TIER_3_BYTES);
	else
		give_tier(from, head, set, SLICE_BYTES);
}

static __always_inline void give_whole(__u64 from, const struct tls_record *head, const struct tls_settings *set)
{
	struct tls_record *record = bpf_ringbuf_reserve(MAP(tls_ring), sizeof(*head) + SLICE_BYTES, 0);

	if (!record) {
		lose(LOST_RING_FULL, SLICE_BYTES);
		return;
	}
	*record = *head;
	if (!bpf_probe_read_user(record + 1, SLICE_BYTES, (void *)from)) {
		record->captured_bytes = SLICE_BYTES;
		add(COUNT_CAPTURED_BYTES, SLICE_BYTES);
	} else {
		record->missing_bytes = SLICE_BYTES;
		lose(LOST_UNREADABLE, SLICE_BYTES);
	}
	bpf_ringbuf_submit(record, wake(set));
	add(COUNT_CAPTURED, 1);
}

/* A record without payload. */
static __always_inline void tell(__u32 kind, __u32 detail, __u64 total, struct tls_record *head,
				 const struct tls_settings *set)
{
	head->kind = kind;
	head->detail = detail;
	head->total = total;
	give_tier(0, head, set, TIER_1_BYTES);
	head->kind = 0;
	head->detail = 0;
	head->total = 0;
}

/* What is known of an SSL object; makes it known where it is not. NULL where there is no room. */
static __always_inline struct tls_object *object_of(__u64 ssl, __u32 how, struct tls_record *head,
						    const struct tls_settings *set)
{
	struct tls_object fresh = {}, *object;
	struct pointer_key key;

	make_key(head, ssl, &key);
	head->pointer = ssl;
	object = bpf_map_lookup_elem(MAP(tls_objects), &key);
	/* A file seen through two overlay mounts may be probed twice; SSL_free takes an object out, so one this young
	 * is the same. */
	if (!object || (how == OPENED_FROM_START && head->time_ns - object->number > SAME_CALL_NS)) {
		fresh.number = head->time_ns;
		if (bpf_map_update_elem(MAP(tls_objects), &key, &fresh, BPF_ANY))
			return 0;
		object = bpf_map_lookup_elem(MAP(tls_objects), &key);
		if (!object)
			return 0;
		head->number = object->number;
		tell(RECORD_TLS_OPENED, how, 0, head, set);
	}
	head->number = object->number;
	return object;
}

/* A call that carried `total` bytes. */
static __always_inline void give_call(__u64 ssl, __u32 direction, __u32 how, __u64 buffer, __u64 total,
				      struct tls_record *head, const struct tls_settings *set)
{
	struct tls_object *object = object_of(ssl, OPENED_BEFORE, head, set);
	__u64 at = 0;

	if (!object) {
		lose(LOST_NO_STATE, total);
		return;
	}
	add(COUNT_MATCHED, 1);
	head->kind = RECORD_TLS_SLICE;
	head->direction = direction;
	head->detail = how;
	head->total = total;
	head->sequence = direction == TLS_READ ? object->read_calls++ : object->write_calls++;
	/* Whole slices first: the loop is what the verifier walks again and again, so it has one size only. */
	for (__u64 i = 0; i < MAX_CALL_SLICES - 1; i++) {
		OPAQUE(i); /* else some compilers count another way round, which is beyond the verifier */
		if (total - at <= SLICE_BYTES)
			break;
		head->offset = at;
		give_whole(buffer + at, head, set);
		at += SLICE_BYTES;
	}
	total -= at;
	head->offset = at;
	head->captured_bytes = total > SLICE_BYTES ? SLICE_BYTES : total;
	head->missing_bytes = total - head->captured_bytes;
	if (head->missing_bytes)
		lose(LOST_TOO_LONG, head->missing_bytes);
	give(buffer + at, head, set);
}

static __always_inline int enter(__u64 function, __u64 ssl, __u64 buffer, __u64 done_bytes_at)
{
	struct call_key key = {.thread = bpf_get_current_pid_tgid(), .function = function};
	struct call call = {.ssl = ssl, .buffer = buffer, .done_bytes_at = done_bytes_at};
	struct tls_settings *set = settings();
	struct tls_record head = {};

	if (!set || !identify(set, &head))
		return 0;
	if (bpf_map_update_elem(MAP(tls_calls), &key, &call, BPF_ANY))
		lose(LOST_NO_STATE, 0);
	return 0;
}

/* Take back what `enter` left. 0 where there is nothing: the probe was attached in the middle of the call. */
static __always_inline int leave(__u64 function, struct call *call)
{
	struct call_key key = {.thread = bpf_get_current_pid_tgid(), .function = function};
	struct call *kept = bpf_map_lookup_elem(MAP(tls_calls), &key);

	if (!kept)
		return 0;
	*call = *kept;
	bpf_map_delete_elem(MAP(tls_calls), &key);
	return 1;
}

static __always_inline int finish(__u64 function, __u32 direction, int result)
{
	struct tls_settings *set = settings();
	struct tls_record head = {};
	struct call call;
	__u64 total;

	if (!set || !leave(function, &call))
		return 0;
	if (!identify(set, &head))
		return 0;
	add(COUNT_TOTAL, 1);
	if (result <= 0)
		return 0;
	total = result;
	if (call.done_bytes_at) {
		total = 0;
		if (bpf_probe_read_user(&total, sizeof(total), (void *)call.done_bytes_at)) {
			lose(LOST_UNREADABLE, 0);
			return 0;
		}
	}
	if (!total) {
		add(COUNT_DUPLICATE, 1);
		return 0;
	}
	give_call(call.ssl, direction, SLICE_CONFIRMED, call.buffer, total, &head, set);
	return 0;
}

static __always_inline void know_bio(__u64 ssl, __u64 number, __u64 bio, __u32 direction, const struct tls_record *head)
{
	struct tls_bio value = {.ssl = ssl, .number = number, .direction = direction};
	struct pointer_key key;

	if (!bio)
		return;
	make_key(head, bio, &key);
	bpf_map_update_elem(MAP(tls_bios), &key, &value, BPF_ANY);
}

static __always_inline int set_bios(__u64 ssl, __u64 read, __u64 write)
{
	struct tls_settings *set = settings();
	struct tls_record head = {};

	if (!set || !identify(set, &head) || !object_of(ssl, OPENED_BEFORE, &head, set))
		return 0;
	know_bio(ssl, head.number, read, read == write ? TLS_BOTH : TLS_READ, &head);
	if (read != write)
		know_bio(ssl, head.number, write, TLS_WRITE, &head);
	return 0;
}

/* SSL_set_bio calls these, too: what it said stands. */
static __always_inline int set_one_bio(__u64 ssl, __u64 bio, __u32 direction)
{
	struct tls_settings *set = settings();
	struct tls_record head = {};
	struct pointer_key key;
	struct tls_bio *known;

	if (!set || !identify(set, &head) || !object_of(ssl, OPENED_BEFORE, &head, set))
		return 0;
	make_key(&head, bio, &key);
	known = bpf_map_lookup_elem(MAP(tls_bios), &key);
	if (known && known->number == head.number && known->ssl == ssl && known->direction != direction)
		direction = TLS_BOTH;
	know_bio(ssl, head.number, bio, direction, &head);
	return 0;
}

static __always_inline int set_fd(__u64 ssl, __u32 fd)
{
	struct tls_settings *set = settings();
	struct tls_record head = {};

	if (!set || !identify(set, &head) || !object_of(ssl, OPENED_BEFORE, &head, set))
		return 0;
	tell(RECORD_TLS_FD, 0, fd, &head, set);
	return 0;
}

/* The first pieces of ciphertext that were written to a known BIO. BIO_read has no probe: it is called several times
 * for each record, and a probe's trap costs more than all it would tell.
 */
static __always_inline void give_evidence(__u64 bio, __u64 buffer, __u64 total)
{
	struct tls_settings *set = settings();
	struct tls_record head = {};
	struct pointer_key key;
	struct tls_object *object;
	struct tls_bio *known;
	__u32 *evidence;

	if (!set || total < MIN_EVIDENCE_BYTES || !identify(set, &head))
		return;
	make_key(&head, bio, &key);
	known = bpf_map_lookup_elem(MAP(tls_bios), &key);
	if (!known)
		return;
	make_key(&head, known->ssl, &key);
	object = bpf_map_lookup_elem(MAP(tls_objects), &key);
	if (!object || object->number != known->number)
		return;
	/* OpenSSL writes to the one BIO what goes out; into a memory BIO the program writes what came in. */
	head.direction = known->direction == TLS_READ ? TLS_READ : TLS_WRITE;
	evidence = head.direction == TLS_READ ? &object->read_evidence : &object->write_evidence;
	if (*evidence >= MAX_EVIDENCE)
		return;
	head.sequence = (*evidence)++;
	head.kind = RECORD_TLS_CIPHER;
	head.pointer = known->ssl;
	head.number = object->number;
	head.total = total;
	head.captured_bytes = total < EVIDENCE_BYTES ? total : EVIDENCE_BYTES;
	head.missing_bytes = total - head.captured_bytes;
	give_tier(buffer, &head, set, TIER_1_BYTES);
}

/* programs: SSL_CTX is never looked into, and pointers are names, not addresses to follow */

SEC("uprobe")
int ssl_read(struct pt_regs *ctx)
{
	return enter(FUNCTION_READ, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), 0);
}

SEC("uprobe")
int ssl_read_ex(struct pt_regs *ctx)
{
	return enter(FUNCTION_READ, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM4(ctx));
}

SEC("uretprobe")
int ssl_read_done(struct pt_regs *ctx)
{
	return finish(FUNCTION_READ, TLS_READ, (int)PT_REGS_RC(ctx));
}

SEC("uprobe")
int ssl_write(struct pt_regs *ctx)
{
	return enter(FUNCTION_WRITE, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), 0);
}

SEC("uprobe")
int ssl_write_ex(struct pt_regs *ctx)
{
	return enter(FUNCTION_WRITE, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM4(ctx));
}

SEC("uretprobe")
int ssl_write_done(struct pt_regs *ctx)
{
	return finish(FUNCTION_WRITE, TLS_WRITE, (int)PT_REGS_RC(ctx));
}

/* For SSL_write and SSL_write_ex, where returns must not be probed. */
SEC("uprobe")
int ssl_write_only(struct pt_regs *ctx)
{
	struct tls_settings *set = settings();
	struct tls_record head = {};
	__u64 total = PT_REGS_PARM3(ctx);

	if (!set || !identify(set, &head))
		return 0;
	add(COUNT_TOTAL, 1);
	if (total)
		give_call(PT_REGS_PARM1(ctx), TLS_WRITE, SLICE_UNCONFIRMED, PT_REGS_PARM2(ctx), total, &head, set);
	return 0;
}

SEC("uretprobe")
int ssl_new_done(struct pt_regs *ctx)
{
	struct tls_settings *set = settings();
	struct tls_record head = {};
	__u64 ssl = PT_REGS_RC(ctx);

	if (set && ssl && identify(set, &head))
		object_of(ssl, OPENED_FROM_START, &head, set);
	return 0;
}

SEC("uprobe")
int ssl_free(struct pt_regs *ctx)
{
	struct tls_settings *set = settings();
	struct tls_record head = {};
	struct tls_object *object;
	struct pointer_key key;
	__u64 ssl = PT_REGS_PARM1(ctx);

	if (!set || !ssl || !identify(set, &head))
		return 0;
	make_key(&head, ssl, &key);
	object = bpf_map_lookup_elem(MAP(tls_objects), &key);
	if (!object)
		return 0;
	head.pointer = ssl;
	head.number = object->number;
	bpf_map_delete_elem(MAP(tls_objects), &key);
	tell(RECORD_TLS_CLOSED, CLOSED_FREED, 0, &head, set);
	return 0;
}

SEC("uprobe")
int ssl_shutdown(struct pt_regs *ctx)
{
	struct tls_settings *set = settings();
	struct tls_record head = {};
	struct tls_object *object;

	if (!set || !identify(set, &head))
		return 0;
	object = object_of(PT_REGS_PARM1(ctx), OPENED_BEFORE, &head, set);
	if (!object || object->said_shutdown)
		return 0;
	object->said_shutdown = 1; /* it is called until the peer has answered */
	tell(RECORD_TLS_CLOSED, CLOSED_SHUTDOWN, 0, &head, set);
	return 0;
}

SEC("uprobe")
int ssl_set_bio(struct pt_regs *ctx)
{
	return set_bios(PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));
}

SEC("uprobe")
int ssl_set_rbio(struct pt_regs *ctx)
{
	return set_one_bio(PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), TLS_READ);
}

SEC("uprobe")
int ssl_set_wbio(struct pt_regs *ctx)
{
	return set_one_bio(PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), TLS_WRITE);
}

SEC("uprobe")
int ssl_set_fd(struct pt_regs *ctx)
{
	return set_fd(PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx));
}

SEC("uprobe")
int bio_write(struct pt_regs *ctx)
{
	__u64 total = PT_REGS_PARM3(ctx);

	give_evidence(PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), total & 0x7fffffff);
	return 0;
}

static __always_inline int process(__u32 kind)
{
	struct tls_settings *set = settings();
	struct tls_record head = {};

	if (set && identify(set, &head))
		tell(kind, 0, 0, &head, set);
	return 0;
}

SEC("raw_tracepoint/sched_process_exec")
int process_started(void *ctx)
{
	(void)ctx;
	return process(RECORD_PROCESS_STARTED);
}

SEC("raw_tracepoint/sched_process_exit")
int process_ended(void *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();

	(void)ctx;
	/* A process ends when its first thread does; the others may outlive it by moments. */
	if ((__u32)id != id >> 32)
		return 0;
	return process(RECORD_PROCESS_ENDED);
}

DECLARE_LICENSE;
