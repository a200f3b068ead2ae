/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Programs that tick off numbered packets: two versions of one, and a census before and after. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define NUMBERS 20000
/* The payload's length: a mark, the packet's number, and nothing more. */
#define PAYLOAD 12

struct payload {
	__u64 mark;
	__u32 number;
} __attribute__((packed));

/* All that there is in .bss: it is read as it lies there. */
struct flood {
	__u64 mark;
	__u8 came[NUMBERS];
	__u8 red[NUMBERS];
	__u8 blue[NUMBERS];
	__u8 went[NUMBERS];
};

struct flood flood;

/* With an Ethernet header or without: what counts is at the end. */
static __always_inline int tick_off(struct __sk_buff *skb, __u8 *saw)
{
	struct payload payload;

	if (skb->len < PAYLOAD)
		return -1;
	if (bpf_skb_load_bytes(skb, skb->len - PAYLOAD, &payload, PAYLOAD))
		return -1;
	if (payload.mark != flood.mark || payload.number >= NUMBERS)
		return -1;
	saw[payload.number]++;
	return -1;
}

SEC("tc")
int arrival(struct __sk_buff *skb)
{
	return tick_off(skb, flood.came);
}

SEC("tc")
int red(struct __sk_buff *skb)
{
	return tick_off(skb, flood.red);
}

SEC("tc")
int blue(struct __sk_buff *skb)
{
	return tick_off(skb, flood.blue);
}

SEC("tc")
int leaving(struct __sk_buff *skb)
{
	return tick_off(skb, flood.went);
}

char LICENSE[] SEC("license") = "GPL";
