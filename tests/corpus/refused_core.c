/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A member that no kernel has, read without asking. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct task_struct {
	long never_there;
} __attribute__((preserve_access_index));

SEC("raw_tp/sys_enter")
int reads(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, never_there) != 0;
}

char _license[] SEC("license") = "GPL";
