/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A program that counts packets by what they carry. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

struct protocols {
	__u64 arp;
	__u64 ipv4;
};

struct protocols protocols;

SEC("tc")
int count_protocols(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		__sync_fetch_and_add(&protocols.arp, 1);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		__sync_fetch_and_add(&protocols.ipv4, 1);
	return -1;
}

char LICENSE[] SEC("license") = "GPL";
