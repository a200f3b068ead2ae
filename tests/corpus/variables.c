/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Variables of the kernel by type: it loads where the kernel tells the addresses of its data. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct rq {
	int nothing_of_it_matters;
};

extern const struct rq runqueues __ksym;
extern const int bpf_prog_active __ksym __weak;
extern const int no_such_variable __ksym __weak;

__u64 absent;

SEC("raw_tp/sys_enter")
int reads(void *ctx)
{
	struct rq *mine = bpf_this_cpu_ptr(&runqueues);

	absent = (__u64)&no_such_variable;
	if (&bpf_prog_active)
		return *(int *)bpf_this_cpu_ptr(&bpf_prog_active);
	return mine != 0;
}

char _license[] SEC("license") = "GPL";
