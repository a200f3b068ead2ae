/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Programs at probes (USDT) that keep what they find there, one hit after another. */
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <stdbool.h>

#ifndef BPF_USDT_MAX_SPEC_CNT
#define BPF_USDT_MAX_SPEC_CNT 8
#endif
#include <bpf/usdt.bpf.h>

#define HITS 16

struct hit {
	long args[BPF_USDT_MAX_ARG_CNT];
	long count;
	long cookie;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HITS);
	__type(key, __u32);
	__type(value, struct hit);
} hits SEC(".maps");

__u32 next;
__u64 counted;

char LICENSE[] SEC("license") = "GPL";

static __always_inline int keep(struct pt_regs *ctx)
{
	__u32 number = __sync_fetch_and_add(&next, 1);
	struct hit *hit = bpf_map_lookup_elem(&hits, &number);

	if (!hit)
		return 0;
	hit->count = bpf_usdt_arg_cnt(ctx);
	hit->cookie = bpf_usdt_cookie(ctx);
#pragma unroll
	for (int i = 0; i < BPF_USDT_MAX_ARG_CNT; i++) {
		long value;
		int error = bpf_usdt_arg(ctx, i, &value);

		hit->args[i] = error ? error : value;
	}
	return 0;
}

SEC("usdt")
int later(struct pt_regs *ctx)
{
	return keep(ctx);
}

SEC("usdt/netbpf-probed:netbpf:kinds")
int named(struct pt_regs *ctx)
{
	return keep(ctx);
}

SEC("usdt")
int counts(struct pt_regs *ctx)
{
	__sync_fetch_and_add(&counted, 1);
	return 0;
}
