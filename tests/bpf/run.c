/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A chain of three: the first marks and changes a datagram, the second decides by what it was left. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* IPv4 without options and UDP to the port for discarding, behind an Ethernet header. */
#define PROTOCOL_AT 23
#define PORT_AT 36
#define PAYLOAD_AT 42

__u32 stamped, judged, sealed;
/* Where the first program saw a packet. */
__u32 ifindex, ingress_ifindex;

/* The payload's first bytes, of a datagram that this test has sent. */
static __always_inline int ours(struct __sk_buff *skb, __u8 payload[2])
{
	__u8 protocol, port[2];

	if (bpf_skb_load_bytes(skb, PROTOCOL_AT, &protocol, 1) || protocol != 17)
		return 0;
	if (bpf_skb_load_bytes(skb, PORT_AT, port, 2) || port[0] || port[1] != 9)
		return 0;
	return !bpf_skb_load_bytes(skb, PAYLOAD_AT, payload, 2);
}

SEC("tc")
int stamp(struct __sk_buff *skb)
{
	__u8 payload[2], changed;

	if (!ours(skb, payload))
		return -1;
	stamped++;
	ifindex = skb->ifindex;
	ingress_ifindex = skb->ingress_ifindex;
	skb->mark = 1000 + payload[0];
	skb->priority = 5;
	skb->cb[3] = 7 * payload[0];
	changed = ~payload[0];
	bpf_skb_store_bytes(skb, PAYLOAD_AT + 1, &changed, 1, 0);
	return -1;
}

SEC("tc")
int judge(struct __sk_buff *skb)
{
	__u8 payload[2];

	if (!ours(skb, payload))
		return -1;
	judged++;
	/* All of it must have come along, else no packet passes. */
	if ((__u8)~payload[0] != payload[1] || skb->mark != 1000 + payload[0] ||
	    skb->priority != 5 || skb->cb[3] != 7 * payload[0])
		return 2;
	switch (payload[0]) {
	case 1: return 0;
	case 2: return 2;
	case 3: return 3;
	case 4: return 4;
	case 5: return 1;
	case 6: return 99;
	}
	return -1;
}

SEC("tc")
int seal(struct __sk_buff *skb)
{
	__u8 payload[2], seal = 0x77;

	if (!ours(skb, payload))
		return -1;
	sealed++;
	bpf_skb_store_bytes(skb, PAYLOAD_AT + 2, &seal, 1, 0);
	return -1;
}

SEC("tc")
int grow(struct __sk_buff *skb)
{
	bpf_skb_change_tail(skb, skb->len + 1000, 0);
	return -1;
}

SEC("xdp")
int queue(struct xdp_md *xdp)
{
	long meta = xdp->data - xdp->data_meta;

	/* Returns aborted, drop, pass, tx or redirect by what it is given. */
	if (xdp->ingress_ifindex > 1)
		return XDP_TX;
	return meta == 8 ? XDP_REDIRECT : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
