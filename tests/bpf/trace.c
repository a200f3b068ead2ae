/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Three programs that write down the order in which they run, for packets of one length. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* A UDP datagram of 777 bytes in IPv4, as it is seen without and with its Ethernet header. */
#define WITHOUT_ETHERNET (777 + 8 + 20)
#define WITH_ETHERNET (WITHOUT_ETHERNET + 14)

struct trace {
	__u32 count;
	__u32 order[31];
};

struct trace trace;

static __always_inline int write_down(struct __sk_buff *skb, __u32 who)
{
	__u32 at = trace.count;

	if (skb->len != WITHOUT_ETHERNET && skb->len != WITH_ETHERNET)
		return -1;
	if (at < 31)
		trace.order[at] = who;
	trace.count = at + 1;
	return -1;
}

SEC("tc")
int one(struct __sk_buff *skb)
{
	return write_down(skb, 1);
}

SEC("tc")
int two(struct __sk_buff *skb)
{
	return write_down(skb, 2);
}

SEC("tc")
int three(struct __sk_buff *skb)
{
	return write_down(skb, 3);
}

char LICENSE[] SEC("license") = "GPL";
