/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A congestion control made of programs. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct sock;

struct tcp_congestion_ops {
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
} __attribute__((preserve_access_index));

__u32 calls = 5;

static __noinline __u32 counted(__u32 value)
{
	calls++;
	return value;
}

SEC("struct_ops/thresh")
__u32 thresh(unsigned long long *ctx)
{
	return counted(4);
}

SEC("struct_ops/avoid")
void avoid(unsigned long long *ctx)
{
	calls += ctx[1];
}

SEC("struct_ops/undo")
__u32 undo(unsigned long long *ctx)
{
	return 7;
}

SEC(".struct_ops")
struct tcp_congestion_ops corpus_cc = {
	.ssthresh = (void *)thresh,
	.cong_avoid = (void *)avoid,
	.undo_cwnd = (void *)undo,
	.name = "corpus_cc",
};

char _license[] SEC("license") = "GPL";
