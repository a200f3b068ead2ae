/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Maps of maps and of programs: inner maps with and without a name, and what is in them at first. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct sized {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 7);
};

struct sized one SEC(".maps"), two SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, 16);
	__array(values, struct sized);
} by_number SEC(".maps") = {
	.values = { [9] = &two, [3] = &one, [4] = &one },
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(key_size, 4);
	__uint(value_size, 4);
	__uint(max_entries, 300);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 2);
		__uint(map_flags, BPF_F_INNER_MAP);
		__type(key, __u32);
		__type(value, int);
	});
} empty SEC(".maps");

struct rings {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 2);
	__array(values, struct rings);
} of_rings SEC(".maps") = {
	.values = { &ring },
};

int last(struct __sk_buff *skb);
int lower(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, 4);
	__uint(max_entries, 1000);
	__array(values, int (void *));
} jumps SEC(".maps") = {
	.values = { [999] = (void *)&last, [0] = (void *)&lower, [5] = (void *)&last },
};

SEC("tc")
int lower(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 999);
	return 1;
}

SEC("tc")
int last(struct __sk_buff *skb)
{
	__u32 key = 9;
	void *map = bpf_map_lookup_elem(&by_number, &key);
	__u64 *found = map ? bpf_map_lookup_elem(map, &key) : 0;
	void *bare = bpf_map_lookup_elem(&empty, &key);
	void *out = bpf_map_lookup_elem(&of_rings, &key);

	if (out)
		bpf_ringbuf_output(out, &key, sizeof(key), 0);
	return (found ? *found : 2) + (bare != 0);
}

char _license[] SEC("license") = "GPL";
