/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A struct of programs with one for a member that no kernel has. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct sock;

struct tcp_congestion_ops {
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
	int (*no_such_member)(struct sock *sk);
} __attribute__((preserve_access_index));

SEC("struct_ops/thresh")
__u32 thresh(unsigned long long *ctx)
{
	return 4;
}

SEC("struct_ops/avoid")
void avoid(unsigned long long *ctx)
{
}

SEC("struct_ops/undo")
__u32 undo(unsigned long long *ctx)
{
	return 7;
}

SEC("struct_ops/no_such_call")
int no_such_call(unsigned long long *ctx)
{
	return 0;
}

SEC(".struct_ops")
struct tcp_congestion_ops corpus_member = {
	.ssthresh = (void *)thresh,
	.cong_avoid = (void *)avoid,
	.undo_cwnd = (void *)undo,
	.name = "corpus_member",
	.no_such_member = (void *)no_such_call,
};

char _license[] SEC("license") = "GPL";
