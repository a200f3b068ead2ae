/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Drops ICMP packets longer than max_len, counts them, and leaves all others to the next program.
 *
 *     clang -O2 -g -target bpf -I/usr/include/$(uname -m)-linux-gnu -c icmp_guard.c
 *     netbpf tcx attach eth0 ingress icmp_guard.o --set max_len=128
 *
 * It asks for the network header, not for an offset from the packet's start: an L3 netkit device
 * has no Ethernet header, any other device has one. TC_ACT_UNSPEC and TC_ACT_SHOT are what newer
 * headers also call TCX_NEXT and TCX_DROP, or NETKIT_NEXT and NETKIT_DROP.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* The longest IP packet that may carry ICMP, in bytes; netbpf ... --set max_len=N changes it. */
const volatile __u32 max_len = 1280;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} dropped SEC(".maps");

SEC("tc")
int icmp_guard(struct __sk_buff *skb)
{
	struct iphdr ip;
	__u32 key = 0;
	__u64 *count;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET))
		return TC_ACT_UNSPEC;
	if (ip.protocol != IPPROTO_ICMP || bpf_ntohs(ip.tot_len) <= max_len)
		return TC_ACT_UNSPEC;

	count = bpf_map_lookup_elem(&dropped, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
