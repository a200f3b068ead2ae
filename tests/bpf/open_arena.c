/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* An arena and variables in it. Needs clang 18 or later. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define __arena __attribute__((address_space(1)))
#define BPF_MAP_TYPE_ARENA_ 33
#define BPF_F_MMAPABLE_ 1024
#define __ulong_(name, val) enum { ___bpf_concat_##name = val } name

struct {
	__uint(type, BPF_MAP_TYPE_ARENA_);
	__uint(map_flags, BPF_F_MMAPABLE_);
	__uint(max_entries, 100);
	__ulong_(map_extra, 0x1ull << 44);
} arena SEC(".maps");

struct node {
	struct node __arena *next;
	int number;
};

int __arena counter = 7;
struct node __arena first = { .number = 3 };
struct node __arena *head;

SEC("tc")
int walks(struct __sk_buff *skb)
{
	struct node __arena *node;
	int sum = 0;

	counter++;
	first.number = skb->len;
	head = &first;
	for (int i = 0; i < 8; i++) {
		node = head;
		if (!node)
			break;
		sum += node->number;
		head = node->next;
	}
	return sum;
}

char _license[] SEC("license") = "GPL";
