/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A congestion control of TCP made of programs, and others that fit this kernel or do not. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct sock;
struct ack_sample;

struct tcp_congestion_ops {
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
	__u32 flags;
};

struct tcp_congestion_ops___newer {
	char name[16];
	__u32 (*ssthresh)(struct sock *sk);
	__u32 (*undo_cwnd)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	int (*no_such_member)(struct sock *sk);
	long no_such_value;
};

SEC("struct_ops/ssthresh")
__u32 my_ssthresh(unsigned long long *ctx)
{
	return 2;
}

SEC("struct_ops/cong_avoid")
void my_cong_avoid(unsigned long long *ctx)
{
}

SEC("struct_ops/undo_cwnd")
__u32 my_undo_cwnd(unsigned long long *ctx)
{
	return 10;
}

#ifdef NO_PLACE
SEC("struct_ops")
int unknown(unsigned long long *ctx)
{
	return 0;
}
#endif

#ifndef ONLY
SEC(".struct_ops.link")
struct tcp_congestion_ops___newer newer = {
	.ssthresh = (void *)my_ssthresh,
	.undo_cwnd = (void *)my_undo_cwnd,
	.cong_avoid = (void *)my_cong_avoid,
	.name = "nb_newer",
#ifdef NO_PLACE
	.no_such_member = (void *)unknown,
#endif
#ifdef TOO_NEW
	.no_such_value = 1,
#endif
};

SEC("?struct_ops/ssthresh")
__u32 lonely(unsigned long long *ctx)
{
	return 3;
}

SEC("?.struct_ops")
struct tcp_congestion_ops optional = {
	.ssthresh = (void *)lonely,
	.cong_avoid = (void *)my_cong_avoid,
	.undo_cwnd = (void *)my_undo_cwnd,
	.name = "nb_optional",
};
#endif

SEC(ONE)
struct tcp_congestion_ops mine = {
	.ssthresh = (void *)my_ssthresh,
	.cong_avoid = (void *)my_cong_avoid,
	.undo_cwnd = (void *)my_undo_cwnd,
	.name = "nb_mine",
};

char _license[] SEC("license") = "GPL";
