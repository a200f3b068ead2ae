/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Counts packets and bytes, and leaves the decision to the next program of the chain. */
#include "tc.h"

/* include/uapi/linux/bpf.h: enum bpf_map_type */
#define BPF_MAP_TYPE_PERCPU_ARRAY 6

static void *(*const map_lookup_elem)(void *map, const void *key) = (void *)1;

struct counter {
	u64 packets;
	u64 bytes;
};

struct {
	int (*type)[BPF_MAP_TYPE_PERCPU_ARRAY];
	int (*max_entries)[1];
	u32 *key;
	struct counter *value;
} counters SEC(".maps");

SEC("tc")
int count(struct __sk_buff *skb)
{
	u32 key = 0;
	struct counter *counter = map_lookup_elem(&counters, &key);

	if (counter) {
		counter->packets++;
		counter->bytes += skb->len;
	}
	return NEXT;
}
