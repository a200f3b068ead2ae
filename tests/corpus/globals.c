/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Variables in every section that data can lie in, strings, and addresses inside of objects. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct table {
	char name[12];
	__u64 values[5];
	_Bool set : 1;
	signed int small : 7;
} __attribute__((aligned(64)));

__u64 counted = 0x1122334455667788;
__u8 bytes[13] = "twelve bytes";
struct table filled = { .name = "filled", .values = { 1, [4] = -1 }, .small = -3 };
struct table zeros[3];
static __u32 local_data = 17;
static volatile __u16 local_zero;
const volatile __u32 limit = 99;
const volatile struct table constant = { .name = "constant" };
static const volatile char word[] = "a word";
static const char *words_of(int n);
__attribute__((visibility("hidden"))) long hidden = 4;
__attribute__((weak)) long weak_one = 5;
int own SEC(".data.own") = 6;
int of_a_long_name SEC(".data.of_a_long-name") = 9;
static volatile int own_static SEC(".data.static") = 7;
int zero_own SEC(".bss.own");
const volatile int constant_own SEC(".rodata.own") = 8;
__attribute__((aligned(4096))) char page[4096] SEC(".data.page") = { [5] = 1 };

static __noinline const char *words_of(int n)
{
	return n > 3 ? "more than three" : n == 3 ? "three" : "fewer";
}

SEC("tc")
int counts(struct __sk_buff *skb)
{
	static int calls = 3;
	static const volatile int lookup[4] = { 9, 8, 7, 6 };

	calls++;
	counted += skb->len;
	local_data++;
	local_zero--;
	zeros[1].values[2] = local_data;
	filled.small++;
	hidden += weak_one + own + own_static + of_a_long_name;
	zero_own = calls;
	page[70] = constant.name[1] + lookup[skb->len & 3];
	return limit + constant_own + words_of(skb->len)[0] + word[1] + bytes[2];
}

SEC("tc")
int prints(struct __sk_buff *skb)
{
	bpf_printk("len %d mark %d", skb->len, skb->mark);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
__u32 _version SEC("version") = 0x010203;
