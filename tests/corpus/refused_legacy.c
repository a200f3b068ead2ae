/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A map of the kind before BTF. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__u32 type, key_size, value_size, max_entries, flags;
} old SEC("maps") = { BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0 };

SEC("tc")
int uses(struct __sk_buff *skb)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&old, &zero) != 0;
}

char _license[] SEC("license") = "GPL";
