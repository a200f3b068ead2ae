/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Functions that programs call: static, global, weak, hidden, in other sections, by address. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

volatile long seen;

static __noinline long leaf(long a)
{
	seen += a;
	return a * 3 + seen;
}

__noinline int global_one(int a, int b)
{
	return leaf(a) - leaf(b);
}

__attribute__((weak)) __noinline int weak_one(int a)
{
	return leaf(a) ? global_one(a, 2) : 0;
}

__attribute__((visibility("hidden"))) __noinline int hidden_one(struct __sk_buff *skb)
{
	return leaf(skb->len);
}

__noinline int of_context(struct __sk_buff *skb)
{
	return skb->mark + 1;
}

__noinline int never_called(int a)
{
	return leaf(a) + 1;
}

static __noinline long deep_three(long a)
{
	return leaf(a) + 3;
}

static __noinline long deep_two(long a)
{
	return deep_three(a) + leaf(2);
}

static __noinline long deep_one(long a)
{
	return deep_two(a) + deep_three(1);
}

static long step(__u32 index, void *context)
{
	*(long *)context += leaf(index);
	return index > 5;
}

static long other_step(__u32 index, void *context)
{
	return deep_two(index) & 1;
}

SEC("tc")
int before(struct __sk_buff *skb)
{
	return deep_one(skb->len) + weak_one(3);
}

SEC("xdp")
int another_section(struct xdp_md *ctx)
{
	return global_one(ctx->rx_queue_index, 4) & 1 ? XDP_PASS : XDP_DROP;
}

SEC("tc")
int by_address(struct __sk_buff *skb)
{
	long sum = 0;

	bpf_loop(10, skb->len ? step : other_step, &sum, 0);
	bpf_loop(3, other_step, &sum, 0);
	return sum + of_context(skb) + hidden_one(skb);
}

SEC("tc")
int alone(struct __sk_buff *skb)
{
	return 0;
}

SEC("tc")
int after(struct __sk_buff *skb)
{
	return leaf(1) + deep_three(2) + global_one(3, 4) + weak_one(5) + deep_one(6);
}

char _license[] SEC("license") = "GPL";
