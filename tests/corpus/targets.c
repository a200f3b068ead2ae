/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Programs of which the kernel is told by BTF id what they are for. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

__u64 seen;

SEC("tp_btf/sched_switch")
int switches(unsigned long long *ctx)
{
	seen += ctx[0];
	return 0;
}

SEC("iter/bpf_map")
int maps(void *ctx)
{
	seen++;
	return 0;
}

SEC("iter.s/task")
int tasks(void *ctx)
{
	return 0;
}

SEC("raw_tp/sys_enter")
int enters(void *ctx)
{
	return 0;
}

char _license[] SEC("license") = "GPL";
