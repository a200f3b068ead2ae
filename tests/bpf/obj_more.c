/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* String literals, sections of one's own, functions that call one another. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

volatile int custom SEC(".data.custom") = 3;
const volatile int custom_constant SEC(".rodata.custom") = 7;
__attribute__((visibility("hidden"))) int quiet = 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, int);
} hits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2);
	__uint(key_size, 8);
	__uint(value_size, 16);
} recent SEC(".maps");

static __noinline const char *word(int which)
{
	return which ? "some words" : "other words";
}

SEC("tc")
int strings(struct __sk_buff *skb)
{
	const char *text = word(skb->len > 0);

	return text[0] + custom + custom_constant;
}

SEC("tc")
int counts(struct __sk_buff *skb)
{
	__u32 key = 1;
	int *value = bpf_map_lookup_elem(&hits, &key);
	__u64 other = 5;

	if (bpf_map_lookup_elem(&recent, &other))
		return 77;
	if (!value)
		return 99;
	*value += quiet;
	return *value;
}

static __noinline int last(int x)
{
	return x + 1 + (custom > 1000);
}

__attribute__((weak)) __noinline int middle(int x)
{
	return last(x) + 1;
}

static __noinline int top(int x)
{
	return middle(x) + 1;
}

SEC("tc")
int deep(struct __sk_buff *skb)
{
	/* middle and last are reached through top before they are called themselves. */
	return top(skb->len) + middle(skb->len) + last(0);
}

char _license[] SEC("license") = "GPL";
