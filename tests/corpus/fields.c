/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* What the kernel finds in a value by its BTF, and BTF of the less usual kinds. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define tag_of_type(words) __attribute__((btf_type_tag(words)))
#define tag_of_name(words) __attribute__((btf_decl_tag(words)))

struct task_struct;
typedef struct {
	float f;
	double d;
} floats;

enum signs { MINUS = -1, PLUS = 1 };
enum large { LARGE = 0x100000000ull };

struct timed {
	struct bpf_timer timer;
	int count;
};

struct pointing {
	struct task_struct tag_of_type("kptr_untrusted") * task;
	__u64 other;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct timed);
} timers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__type(key, enum signs);
	__type(value, floats);
} numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2);
	__type(key, enum large);
	__type(value, struct pointing);
} kept SEC(".maps");

static int fires(void *map, __u32 *key, struct timed *value)
{
	value->count++;
	return 0;
}

tag_of_name("told") __noinline int named(int a tag_of_name("an argument"))
{
	return a + 1;
}

SEC("tc")
int starts(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct timed *found = bpf_map_lookup_elem(&timers, &zero);

	if (!found)
		return 0;
	bpf_timer_init(&found->timer, &timers, 1);
	bpf_timer_set_callback(&found->timer, fires);
	return named(found->count);
}

SEC("tc")
int reads(struct __sk_buff *skb)
{
	enum large key = LARGE;
	enum signs sign = MINUS;
	struct pointing *found = bpf_map_lookup_elem(&kept, &key);
	void *other = bpf_map_lookup_elem(&numbers, &sign);

	return (found ? found->other : 0) + (other != 0);
}

char _license[] SEC("license") = "GPL";
