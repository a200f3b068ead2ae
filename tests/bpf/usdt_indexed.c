/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The specs of probes as libbpf lays them out since 1.7, with arguments in indexed memory. */
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

enum where {
	INDEXED = 3,
};

struct argument {
	__u64 val_off;
	enum where arg_type : 8;
	__u16 idx_reg_off : 12;
	__u16 scale_bitshift : 4;
	__u8 reserved : 8;
	short reg_off;
	_Bool arg_signed;
	char arg_bitshift;
};

struct spec {
	struct argument args[12];
	__u64 usdt_cookie;
	short arg_cnt;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, int);
	__type(value, struct spec);
} __bpf_usdt_specs SEC(".maps");

long first, second;

char LICENSE[] SEC("license") = "GPL";

static __always_inline long argument(struct pt_regs *ctx, struct argument *arg)
{
	unsigned long base = 0, index = 0, value = 0;

	if (arg->arg_type != INDEXED)
		return -1;
	bpf_probe_read_kernel(&base, sizeof(base), (void *)ctx + arg->reg_off);
	bpf_probe_read_kernel(&index, sizeof(index), (void *)ctx + arg->idx_reg_off);
	base += (index << arg->scale_bitshift) + arg->val_off;
	bpf_probe_read_user(&value, sizeof(value), (void *)base);
	value <<= arg->arg_bitshift;
	return arg->arg_signed ? (long)value >> arg->arg_bitshift : value >> arg->arg_bitshift;
}

SEC("usdt")
int later(struct pt_regs *ctx)
{
	int number = bpf_get_attach_cookie(ctx);
	struct spec *spec = bpf_map_lookup_elem(&__bpf_usdt_specs, &number);

	if (spec && spec->arg_cnt == 2) {
		first = argument(ctx, &spec->args[0]);
		second = argument(ctx, &spec->args[1]);
	}
	return 0;
}
