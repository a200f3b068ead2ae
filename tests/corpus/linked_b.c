/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The other half of linked_a.c. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

int shared = 21;
__attribute__((weak)) int weak_value = 4;
static volatile int same_name = 2;
__u64 zero_b;
const volatile int constant_b = 22;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 16);
} common SEC(".maps");

extern int of_a(int a);

static __noinline int helper(int a)
{
	return a - same_name;
}

__noinline int of_b(int a)
{
	return helper(a) * 2;
}

__attribute__((weak)) __noinline int both(int a)
{
	return a + 200;
}

SEC("tc")
int second(struct __sk_buff *skb)
{
	__u32 key = 2;

	bpf_map_update_elem(&common, &key, &(__u64){ 5 }, BPF_ANY);
	zero_b++;
	return of_b(skb->len) + of_a(1) + both(constant_b);
}

SEC("xdp")
int third(struct xdp_md *ctx)
{
	return of_b(ctx->rx_queue_index) & 1 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
