/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Programs of several sections, maps of several kinds, globals, sub-programs, strings. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

enum verdict { PASS = 0, DROP = 2, LATER = -1 };

struct limits {
	__u32 low;
	struct {
		__u16 port;
		char tag[6];
	} inner;
	__u64 table[3];
};

const volatile int verdict = 0;
const volatile enum verdict chosen = PASS;
const volatile _Bool enabled = 0;
const volatile char device[16] = "none";
const volatile struct limits limits = { .low = 7, .inner = { .port = 80, .tag = "abc" } };
__u64 packets = 5;
__u64 seen;
static volatile __s16 hidden = -3;

struct pair {
	__u32 key;
	__u64 value;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128);
	__type(key, __u32);
	__type(value, struct pair);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 8);
} counters SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} leaf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {
	.values = { [1] = &leaf },
};

int target(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__array(values, int (struct __sk_buff *));
} jumps SEC(".maps") = {
	.values = { [2] = &target },
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1000);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} per_cpu SEC(".maps");

static __noinline int twice(int x)
{
	return x * 2 + (int)hidden;
}

__noinline int global_sum(int a, int b)
{
	return twice(a) + twice(b);
}

__attribute__((visibility("hidden"))) __noinline int quiet(int a)
{
	return twice(a) - 1;
}

static __noinline int bump(__u32 index)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &index);

	if (value)
		__sync_fetch_and_add(value, 1);
	return value ? 0 : 1;
}

SEC("tc")
int first(struct __sk_buff *skb)
{
	packets++;
	seen += skb->len;
	bump(1);
	if (!enabled)
		return verdict;
	return chosen + (limits.inner.port == 443);
}

SEC("xdp")
int dropper(struct xdp_md *ctx)
{
	return device[0] == 'e' ? XDP_DROP : XDP_PASS;
}

SEC("tc")
int second(struct __sk_buff *skb)
{
	return global_sum(skb->len, 3) + quiet(4) + bump(2);
}

SEC("tc")
int target(struct __sk_buff *skb)
{
	bpf_printk("at %d", skb->len);
	return 42;
}

static long walk(__u32 index, void *ctx)
{
	*(int *)ctx += index;
	return 0;
}

SEC("tc")
int looper(struct __sk_buff *skb)
{
	int sum = 0;

	bpf_loop(5, walk, &sum, 0);
	return sum;
}

SEC("tc")
int jumper(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 2);
	return 7;
}

SEC("tc")
int nested(struct __sk_buff *skb)
{
	__u32 one = 1, zero = 0;
	void *map = bpf_map_lookup_elem(&outer, &one);
	__u32 *value = map ? bpf_map_lookup_elem(map, &zero) : 0;
	struct pair found = { .key = 9, .value = 10 };

	bpf_map_update_elem(&pairs, &zero, &found, BPF_ANY);
	return value ? *value : 99;
}

char _license[] SEC("license") = "GPL";
__u32 _version SEC("version") = 7;
