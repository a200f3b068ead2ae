/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A map of every type that needs nothing but its definition, and every attribute. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* BPF_MAP_TYPE_CGRP_STORAGE, which older headers have not. */
#define BPF_MAP_TYPE_CGRP_STORAGE_ 32

#define PLAIN(name, kind, keys, values, entries, flags)                                            \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_##kind);                                                 \
		__uint(key_size, keys);                                                            \
		__uint(value_size, values);                                                        \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, flags);                                                          \
	} name SEC(".maps")

#define TYPED(name, kind, keys, values, entries, flags)                                            \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_##kind);                                                 \
		__type(key, keys);                                                                 \
		__type(value, values);                                                             \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, flags);                                                          \
	} name SEC(".maps")

struct key {
	__u32 prefix;
	__u8 address[4];
};

struct value {
	__u64 packets;
	struct {
		__u16 ports[3];
		enum { NONE, SOME } which : 3;
	} inner;
	struct bpf_spin_lock lock;
};

TYPED(hash, HASH, struct key, struct value, 10, 0);
TYPED(hash_lazy, HASH, struct key, struct value, 10, BPF_F_NO_PREALLOC);
PLAIN(hash_bare, HASH, 12, 20, 10, BPF_F_ZERO_SEED);
TYPED(array, ARRAY, __u32, struct value, 3, 0);
TYPED(array_read, ARRAY, __u32, __u64, 3, BPF_F_RDONLY_PROG);
TYPED(array_write, ARRAY, __u32, __u64, 3, BPF_F_WRONLY_PROG);
TYPED(array_mapped, ARRAY, __u32, __u64, 600, BPF_F_MMAPABLE);
TYPED(array_inner, ARRAY, __u32, __u64, 5, BPF_F_INNER_MAP);
PLAIN(programs, PROG_ARRAY, 4, 4, 4, 0);
PLAIN(perf_all, PERF_EVENT_ARRAY, 4, 4, 0, 0);
TYPED(perf_typed, PERF_EVENT_ARRAY, int, __u32, 1, 0);
TYPED(hash_cpu, PERCPU_HASH, __u32, __u64, 10, 0);
TYPED(array_cpu, PERCPU_ARRAY, __u32, struct key, 10, 0);
PLAIN(stacks, STACK_TRACE, 4, 80, 16, 0);
PLAIN(cgroups, CGROUP_ARRAY, 4, 4, 2, 0);
TYPED(lru, LRU_HASH, __u32, __u64, 32, 0);
TYPED(lru_apart, LRU_HASH, __u32, __u64, 1024, BPF_F_NO_COMMON_LRU);
TYPED(lru_cpu, LRU_PERCPU_HASH, __u32, __u64, 32, 0);
TYPED(trie, LPM_TRIE, struct key, __u64, 32, BPF_F_NO_PREALLOC);
PLAIN(devices, DEVMAP, 4, 8, 8, 0);
PLAIN(devices_short, DEVMAP, 4, 4, 8, 0);
TYPED(devices_hash, DEVMAP_HASH, __u32, struct bpf_devmap_val, 8, 0);
PLAIN(cpus, CPUMAP, 4, 8, 2, 0);
PLAIN(xsks, XSKMAP, 4, 4, 4, 0);
PLAIN(socks, SOCKMAP, 4, 8, 4, 0);
TYPED(socks_hash, SOCKHASH, __u64, __u64, 4, 0);
TYPED(reuseport, REUSEPORT_SOCKARRAY, __u32, __u64, 4, 0);
PLAIN(queue, QUEUE, 0, 8, 8, 0);
struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__type(value, struct key);
	__uint(max_entries, 8);
} stack SEC(".maps");
TYPED(of_sockets, SK_STORAGE, int, struct value, 0, BPF_F_NO_PREALLOC);
TYPED(of_tasks, TASK_STORAGE, int, __u64, 0, BPF_F_NO_PREALLOC);
TYPED(of_inodes, INODE_STORAGE, int, __u64, 0, BPF_F_NO_PREALLOC);
TYPED(of_cgroups, CGRP_STORAGE_, int, __u64, 0, BPF_F_NO_PREALLOC);
TYPED(of_cgroup, CGROUP_STORAGE, struct bpf_cgroup_storage_key, __u64, 0, 0);
PLAIN(of_cgroup_cpu, PERCPU_CGROUP_STORAGE, 8, 16, 0, 0);
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 5000);
} ring SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 1);
} ring_back SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__type(value, struct key);
	__uint(max_entries, 100);
	__uint(map_extra, 3);
} bloom SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4);
	__uint(map_flags, BPF_F_NUMA_NODE | BPF_F_NO_PREALLOC);
	__uint(numa_node, 0);
} near SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} corpus_pinned SEC(".maps");

SEC("xdp")
int uses(struct xdp_md *ctx)
{
	struct key key = { .prefix = 32 };
	__u32 zero = 0;
	struct value *value = bpf_map_lookup_elem(&hash, &key);
	__u64 *number = bpf_map_lookup_elem(&array_read, &zero);

	if (value) {
		bpf_spin_lock(&value->lock);
		value->packets++;
		bpf_spin_unlock(&value->lock);
	}
	bpf_map_push_elem(&queue, &(__u64){ 3 }, BPF_ANY);
	bpf_map_push_elem(&bloom, &key, BPF_ANY);
	bpf_map_update_elem(&corpus_pinned, &zero, &zero, BPF_ANY);
	bpf_ringbuf_output(&ring, &key, sizeof(key), 0);
	bpf_tail_call(ctx, &programs, 1);
	if (number && *number == 1)
		return bpf_redirect_map(&devices_hash, 1, XDP_PASS);
	return bpf_redirect_map(&xsks, 0, XDP_PASS);
}

char _license[] SEC("license") = "GPL";
