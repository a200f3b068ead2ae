/* Takes down the hash of each VLAN's packets, which the kernel makes of what it has dissected. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

__u32 hashes[16] = {};

SEC("tc")
int hash(struct __sk_buff *skb)
{
	hashes[skb->vlan_tci & 15] = bpf_get_hash_recalc(skb);
	return -1;
}

char LICENSE[] SEC("license") = "GPL";
