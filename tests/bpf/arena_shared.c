/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* An arena of variables: one program builds a list and a table in it, one reads what user space built. */
#include "arena.h"

struct {
	__uint(type, MAP_TYPE_ARENA);
	__uint(map_flags, F_MMAPABLE);
	__uint(max_entries, 16);
} arena SEC(".maps");

struct link {
	struct link __arena *next;
};

struct node {
	struct node __arena *next;
	int number;
	char name[8];
	struct link link;
	struct {
		__u16 port;
		__u8 flags[3];
	} inner;
};

#define NODES 64

struct node __arena pool[NODES];
struct node __arena *__arena head;
struct link __arena *__arena links;
struct node __arena *__arena buckets[8];
__u64 __arena counter = 7;
char __arena word[16] = "hello";
int length = 5;

SEC("tc")
int builds(struct __sk_buff *skb)
{
	struct node __arena *last = 0;
	struct link __arena *link = 0;

	counter++;
	for (int i = 0; i < NODES && i < length; i++) {
		struct node __arena *node = &pool[i];

		node->next = last;
		node->number = i * i;
		node->name[0] = 'a' + i;
		node->inner.port = 1000 + i;
		node->inner.flags[2] = i;
		node->link.next = link;
		link = &node->link;
		last = node;
		/* The first of each bucket is enough for a test. */
		buckets[i % 8] = node;
	}
	head = last;
	links = link;
	return 0;
}

SEC("tc")
int sums(struct __sk_buff *skb)
{
	struct node __arena *node = head;
	int sum = 0;

	for (int i = 0; i < NODES; i++) {
		if (!node)
			break;
		sum += node->number;
		node = node->next;
	}
	return sum;
}

char _license[] SEC("license") = "GPL";
