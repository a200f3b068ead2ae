/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A heap of a program's own: pages that it takes and gives back, where nobody else makes any. */
#include "arena.h"

#ifndef FLAGS
#define FLAGS F_SEGV_ON_FAULT
#endif

struct {
	__uint(type, MAP_TYPE_ARENA);
	__uint(map_flags, F_MMAPABLE | FLAGS);
	__uint(max_entries, 8);
} heap SEC(".maps");

struct item {
	struct item __arena *next;
	__u64 number;
};

struct item __arena *head;
void __arena *page;

SEC("syscall")
int takes(void *ctx)
{
	struct item __arena *item, *last = 0;

	page = bpf_arena_alloc_pages(&heap, 0, 1, -1, 0);
	if (!page)
		return 1;
	item = page;
	for (int i = 0; i < 5; i++) {
		item->number = 10 + i;
		item->next = last;
		last = item;
		item++;
	}
	head = last;
	return 0;
}

SEC("syscall")
int gives(void *ctx)
{
	if (!page)
		return 1;
	bpf_arena_free_pages(&heap, page, 1);
	return 0;
}

char _license[] SEC("license") = "GPL";
