/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A heap that a tc program keeps for itself: how often packets of each length came. */
#include "arena.h"

struct {
	__uint(type, MAP_TYPE_ARENA);
	__uint(map_flags, F_MMAPABLE | F_SEGV_ON_FAULT);
	__uint(max_entries, 8);
} heap SEC(".maps");

struct seen {
	struct seen __arena *next;
	__u32 length;
	__u32 times;
};

struct seen __arena *first;
struct seen __arena *room;
int left;

SEC("tc")
int keeps(struct __sk_buff *skb)
{
	struct seen __arena *seen = first;

	for (int i = 0; i < 16; i++) {
		if (!seen)
			break;
		if (seen->length == skb->len)
			return ++seen->times;
		seen = seen->next;
	}
	if (!left) {
		room = bpf_arena_alloc_pages(&heap, 0, 1, -1, 0);
		if (!room)
			return -1;
		left = 4096 / sizeof(*room);
	}
	seen = room++;
	left--;
	seen->length = skb->len;
	seen->times = 1;
	seen->next = first;
	first = seen;
	return 1;
}

char _license[] SEC("license") = "GPL";
