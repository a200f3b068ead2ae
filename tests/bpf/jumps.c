/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Indirect jumps: a switch, labels in a table, two tables in one program, and such in sub-programs, which two programs
 * share and which do not stand at the same place in both. jumps.o is what scripts/build-jumps makes of it (clang 22).
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* How often each way was gone; nothing else keeps the compiler from making the switch a table of results. */
__u64 ways[64];

#define WAY(n, result)                    \
	do {                              \
		ways[n]++;                \
		bpf_ktime_get_ns();       \
		return result;            \
	} while (0)

/* No table starts where its section does. */
SEC("tc")
int first(struct __sk_buff *skb)
{
	return 7;
}

SEC("tc")
int by_switch(struct __sk_buff *skb)
{
	switch (skb->mark) {
	case 0: WAY(1, 100);
	case 1: WAY(2, 107);
	case 2: WAY(3, 103);
	case 3: WAY(4, 115);
	case 4: WAY(5, 101);
	case 5: WAY(6, 122);
	case 6: WAY(7, 133);
	case 8: WAY(8, 108);
	case 9: WAY(9, 190);
	case 10: WAY(10, 111);
	case 11: WAY(11, 155);
	case 12: WAY(12, 144);
	case 13: WAY(13, 166);
	case 14: WAY(14, 177);
	case 15: WAY(15, 188);
	}
	WAY(0, 1);
}

static __noinline int shift(__u64 number)
{
	return number + (bpf_get_prandom_u32() & 0);
}

/* Static: it goes behind each program that calls it. */
static __noinline int by_labels(__u64 number)
{
	const void *const labels[] = {&&one, &&two, &&three, &&two};

	goto *labels[number & 3];
one:
	WAY(20, 1);
two:
	WAY(21, 2);
three:
	WAY(22, 3);
}

/* Global: verified on its own. */
__noinline int by_more_labels(__u32 number)
{
	const void *const labels[64] = {
		[0 ... 4] = &&other, [5] = &&five, [6 ... 39] = &&other, [40] = &&forty,
		[41 ... 62] = &&other, [63] = &&last,
	};

	goto *labels[number & 63];
other:
	WAY(30, 10);
five:
	WAY(31, 50);
forty:
	WAY(32, 400);
last:
	WAY(33, 630);
}

SEC("tc")
int two_tables(struct __sk_buff *skb)
{
	const void *const left[] = {&&l0, &&l1};
	const void *const right[] = {&&r0, &&r1};
	int sum = 0;

	goto *left[skb->mark & 1];
l0:
	sum += 1;
	ways[40]++;
	goto more;
l1:
	sum += 2;
	ways[41]++;
more:
	bpf_ktime_get_ns();
	goto *right[skb->priority & 1];
r0:
	ways[42]++;
	return sum + 10;
r1:
	ways[43]++;
	return sum + 20;
}

SEC("tc")
int in_static(struct __sk_buff *skb)
{
	return by_labels(skb->mark) * 10 + by_labels(skb->priority);
}

SEC("tc")
int in_both(struct __sk_buff *skb)
{
	return shift(skb->mark) + by_more_labels(skb->mark) * 1000 + by_labels(skb->priority) * 100;
}

/* No verifier lets a number of somebody else's choose from a table without looking at it. */
SEC("?tc")
int unchecked(struct __sk_buff *skb)
{
	const void *const labels[] = {&&one, &&two, &&three, &&two};

	goto *labels[skb->mark];
one:
	WAY(50, 1);
two:
	WAY(51, 2);
three:
	WAY(52, 3);
}

char _license[] SEC("license") = "GPL";
