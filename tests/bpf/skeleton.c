/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* What a skeleton has to have a type for; the programs count packets into maps and globals. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum verdict { NEXT = 100, PASS = 0, DROP = 2, class = 7, real = 8 };

union address {
	__u32 v4;
	__u8 v6[16];
	struct {
		__u16 port;
		__u16 zone;
	};
	char text[16];
};

struct flow {
	__u32 length;
	__u8 mac[6];
	__u16 protocol;
};

typedef struct {
	__u64 packets;
	__u64 bytes;
} counter_t;

struct settings {
	union address address;
	enum verdict verdict;
	struct {
		__s16 low;
		__s16 high;
	};
	union {
		__u32 word;
		__u8 octets[4];
	};
	__u32 small : 3;
	__s32 negative : 5;
	_Bool enabled;
	char bytes[8];
	__u8 raw[4];
	struct {
		__u8 x, y;
	} points[2];
	__u32 grid[2][3];
	void *from;
	double ratio;
	float half;
	__u32 lambda;
	__u32 __quiet;
};

const volatile struct settings settings = { .verdict = DROP, .low = -5, .small = 5, .negative = -3 };
const volatile __u32 limit = 1000;
const volatile enum verdict verdict = PASS;
const volatile char device[16] = "none";
__u64 packets = 5;
counter_t total;
struct settings seen;
__u32 None;
__u32 per_hook[4];
__u64 wide[2] SEC(".data.custom");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct flow);
	__type(value, counter_t);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} each_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, enum verdict);
} import SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8);
	__uint(key_size, 4);
	__uint(value_size, 8);
} untyped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

static __always_inline int counted(struct __sk_buff *skb, __u32 hook)
{
	struct flow key = { .length = skb->len, .mac = { 2, 1 }, .protocol = skb->protocol };
	counter_t fresh = { .packets = 1, .bytes = skb->len }, *known;
	__u32 zero = 0, *cpu;

	packets++;
	per_hook[hook & 3]++;
	seen = *(struct settings *)&settings;
	seen.address.port = 443;
	seen.low = skb->len;
	if (skb->len > limit)
		None++;
	total.packets++;
	total.bytes += skb->len;
	wide[1] = total.bytes;
	cpu = bpf_map_lookup_elem(&each_cpu, &zero);
	if (cpu)
		*cpu += 1;
	known = bpf_map_lookup_elem(&flows, &key);
	if (known) {
		known->packets++;
		known->bytes += skb->len;
	} else {
		bpf_map_update_elem(&flows, &key, &fresh, BPF_ANY);
	}
	return verdict;
}

SEC("tcx/ingress")
int came(struct __sk_buff *skb)
{
	return counted(skb, 0);
}

SEC("tcx/egress")
int went(struct __sk_buff *skb)
{
	return counted(skb, 1);
}

SEC("tc")
int yield(struct __sk_buff *skb)
{
	__u32 one = 1;
	enum verdict *found = bpf_map_lookup_elem(&import, &one);

	counted(skb, 2);
	return found ? *found : 0;
}

char _license[] SEC("license") = "GPL";
