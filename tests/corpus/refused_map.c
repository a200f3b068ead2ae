/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A map that the kernel refuses: an array has keys of four bytes. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, 8);
	__uint(value_size, 8);
	__uint(max_entries, 1);
} wrong SEC(".maps");

SEC("tc")
int uses(struct __sk_buff *skb)
{
	__u64 zero = 0;

	return bpf_map_lookup_elem(&wrong, &zero) != 0;
}

char _license[] SEC("license") = "GPL";
