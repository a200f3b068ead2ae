/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Programs that throw, and what is called then: nothing calls it in the file. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern void bpf_throw(__u64 cookie) __ksym;

static __noinline int half(int a)
{
	return a >> 1;
}

__noinline int rescue(__u64 cookie)
{
	return half(cookie);
}

__attribute__((btf_decl_tag("exception_callback:rescue")))
SEC("tc")
int throws(struct __sk_buff *skb)
{
	if (skb->len > 100)
		bpf_throw(6);
	return half(skb->len);
}

SEC("tc")
int without(struct __sk_buff *skb)
{
	if (skb->len > 100)
		bpf_throw(6);
	return 0;
}

char _license[] SEC("license") = "GPL";
