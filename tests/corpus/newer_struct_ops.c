/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Structs of programs that are attached by a link, left out, or have members no kernel has. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct sock;

struct tcp_congestion_ops {
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
	int no_such_member;
} __attribute__((preserve_access_index));

SEC("struct_ops")
__u32 thresh(unsigned long long *ctx)
{
	return 4;
}

SEC("struct_ops")
void avoid(unsigned long long *ctx)
{
}

SEC("struct_ops.s")
__u32 undo(unsigned long long *ctx)
{
	return 7;
}

SEC(".struct_ops.link")
struct tcp_congestion_ops corpus_link = {
	.ssthresh = (void *)thresh,
	.cong_avoid = (void *)avoid,
	.undo_cwnd = (void *)undo,
	.name = "corpus_link",
};

SEC("?.struct_ops.link")
struct tcp_congestion_ops corpus_later = {
	.ssthresh = (void *)thresh,
	.name = "corpus_later",
};

char _license[] SEC("license") = "GPL";
