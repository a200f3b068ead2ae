/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A program that is loaded only when asked for, and sections that say much or nothing. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tcx/ingress")
int inward(struct __sk_buff *skb)
{
	return 1;
}

SEC("?netkit/peer")
int optional(struct __sk_buff *skb)
{
	return 2;
}

SEC("fentry/tcp_connect")
int traced(void *ctx)
{
	return 0;
}

SEC("nonsense")
int unclear(struct __sk_buff *skb)
{
	return 3;
}
