/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A function that no kernel has, and that has to be there. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int bpf_no_such_function(int a) __ksym;

SEC("tc")
int calls(struct __sk_buff *skb)
{
	return bpf_no_such_function(skb->len);
}

char _license[] SEC("license") = "GPL";
