/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* What instruction sets differ in: signed loads and divisions, byte swaps, 32 bit, long jumps. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

volatile __s8 small = -3;
volatile __s16 medium = -300;
volatile __s32 large = -70000;
volatile __u64 total;

static __noinline __u64 mixed(__u32 a, __u64 b)
{
	return __builtin_bswap32(a) + __builtin_bswap64(b) + __builtin_bswap16(a) + (a >> 3) % 7;
}

SEC("tc")
int signs(struct __sk_buff *skb)
{
	__s64 sum = small + medium + large;

#if __BPF_CPU_VERSION__ >= 4
	sum /= (__s32)skb->len | 1;
	sum += (__s8)skb->mark;
#endif
	total += mixed(skb->len, sum);
	return sum < large ? -1 : (int)total;
}

SEC("tc")
int branches(struct __sk_buff *skb)
{
	__u32 len = skb->len;

	if ((int)len < -5 || len > 70000)
		return 3;
	__sync_fetch_and_add(&total, len);
	switch (len) {
	case 1: return small;
	case 2: return medium;
	case 3: return large;
	case 4: return len + medium;
	}
	return len ? mixed(len, len) : 9;
}

char _license[] SEC("license") = "GPL";
