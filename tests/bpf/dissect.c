/* A flow dissector for IPv4 that looks through a VLAN tag and, if it is told to, into GRE. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

const volatile __u8 inside = 1; /* look into GRE */
const volatile __u16 port_mask = 0xffff; /* how much of a source port tells flows apart */
const volatile __u32 answer = 0; /* return this at once: BPF_DROP, BPF_FLOW_DISSECTOR_CONTINUE */

__u64 runs = 0;

/* A run without traffic has no skb, and bpf_skb_load_bytes() nothing to load from. */
static __always_inline int get(struct __sk_buff *skb, __u32 at, void *to, __u32 size)
{
	void *end = (void *)(long)skb->data_end, *from = (void *)(long)skb->data;

	if (at > 1000)
		return -1;
	from += at;
	if (from + size > end)
		return bpf_skb_load_bytes(skb, at, to, size);
	__builtin_memcpy(to, from, size);
	return 0;
}

SEC("flow_dissector")
int dissect(struct __sk_buff *skb)
{
	struct bpf_flow_keys *keys = skb->flow_keys;
	__u32 at = keys->nhoff;
	/* Written to first: the verifier of Linux 7.3 says "verifier bug" (EFAULT) of them otherwise. */
	__be16 pair[2] = {};
	struct iphdr ip = {};

	__sync_fetch_and_add(&runs, 1);
	if (answer)
		return answer;
	if (keys->n_proto == bpf_htons(ETH_P_8021Q)) {
		if (get(skb, at, pair, sizeof(pair)))
			return BPF_DROP;
		keys->n_proto = pair[1];
		at += sizeof(pair);
		keys->nhoff = at;
	}
	if (keys->n_proto != bpf_htons(ETH_P_IP) || get(skb, at, &ip, sizeof(ip)))
		return BPF_DROP;
	at += ip.ihl * 4;
	if (inside && ip.protocol == IPPROTO_GRE) {
		/* Neither checksum nor key. */
		if (get(skb, at, pair, sizeof(pair)) || pair[0] || pair[1] != bpf_htons(ETH_P_IP))
			return BPF_DROP;
		at += sizeof(pair);
		if (get(skb, at, &ip, sizeof(ip)))
			return BPF_DROP;
		at += ip.ihl * 4;
		keys->is_encap = 1;
	}
	keys->thoff = at;
	keys->addr_proto = ETH_P_IP;
	keys->ip_proto = ip.protocol;
	keys->ipv4_src = ip.saddr;
	keys->ipv4_dst = ip.daddr;
	if (ip.protocol == IPPROTO_UDP) {
		if (get(skb, at, pair, sizeof(pair)))
			return BPF_DROP;
		keys->sport = pair[0] & bpf_htons(port_mask);
		keys->dport = pair[1];
	}
	return BPF_OK;
}

char LICENSE[] SEC("license") = "GPL";
