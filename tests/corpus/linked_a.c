/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* One half of an object that the linker makes of two; the other is linked_b.c. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int shared;
extern int of_b(int a);
__attribute__((weak)) int weak_value = 3;
static volatile int same_name = 1;
__u64 big_a = 11;
const volatile int constant_a = 12;

extern struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 16);
} common SEC(".maps");

static __noinline int helper(int a)
{
	return a + same_name;
}

__noinline int of_a(int a)
{
	return helper(a) + shared;
}

__attribute__((weak)) __noinline int both(int a)
{
	return a + 100;
}

SEC("tc")
int first(struct __sk_buff *skb)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&common, &key);

	big_a++;
	return of_a(skb->len) + of_b(2) + both(3) + (value ? *value : constant_a) + weak_value;
}

char _license[] SEC("license") = "GPL";
