/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A program that the verifier refuses, after one that it takes. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int good(struct __sk_buff *skb)
{
	return 0;
}

SEC("tc")
int reads_nowhere(struct __sk_buff *skb)
{
	return *(volatile int *)(long)skb->len;
}

char _license[] SEC("license") = "GPL";
