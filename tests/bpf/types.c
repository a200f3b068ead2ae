/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* What programs take from vmlinux.h: the kernel's structs by CO-RE, its enums and its functions. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct in6_addr);
	__type(value, __u64);
} seen SEC(".maps");

__u32 ifindex;
__u16 family;
int has_tail;
int headers_size;

/* Bit fields, members of anonymous unions, pointers through several structs. */
SEC("tp_btf/netif_receive_skb")
int BPF_PROG(received, struct sk_buff *skb)
{
	struct iphdr ip;

	ifindex = skb->dev->ifindex;
	family = BPF_CORE_READ(skb, sk, __sk_common.skc_family);
	has_tail = bpf_core_field_exists(skb->tail);
	headers_size = bpf_core_field_size(skb->headers);
	if (bpf_probe_read_kernel(&ip, sizeof(ip), skb->head + skb->network_header))
		return 0;
	return BPF_CORE_READ_BITFIELD(skb, pkt_type) + ip.version + skb->csum;
}

SEC("tc")
int ingress(struct __sk_buff *skb)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)(long)skb->data;
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	__u64 one = 1;

	if ((void *)(ip6 + 1) > end || eth->h_proto != bpf_htons(0x86dd))
		return TCX_NEXT;
	bpf_map_update_elem(&seen, &ip6->saddr, &one, BPF_NOEXIST);
	return ip6->nexthdr == IPPROTO_TCP ? TCX_PASS : TCX_DROP;
}

SEC("xdp")
int packets(struct xdp_md *ctx)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_fib_lookup fib = {.family = 2, .ifindex = ctx->ingress_ifindex};

	bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	return tuple.ipv4.dport == fib.dport ? XDP_PASS : XDP_DROP;
}

/* A function of the kernel, declared at the end of vmlinux.h. */
SEC("tc")
int kernel_function(struct __sk_buff *skb)
{
	struct bpf_dynptr ptr;
	char buffer[sizeof(struct udphdr)];

	if (bpf_dynptr_from_skb((void *)skb, 0, &ptr))
		return TCX_NEXT;
	return bpf_dynptr_slice(&ptr, 0, buffer, sizeof(buffer)) ? TCX_PASS : TCX_DROP;
}

SEC("iter/tcp")
int sockets(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tcp;

	if (!common || common->skc_state != TCP_ESTABLISHED)
		return 0;
	tcp = bpf_skc_to_tcp_sock(common);
	return tcp && tcp->inet_conn.icsk_retransmits ? 0 : 0;
}
