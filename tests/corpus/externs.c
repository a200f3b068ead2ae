/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Names that the kernel defines: of symbols by address, and of its functions for programs. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern const void bpf_prog_put __ksym;
extern const void no_such_symbol __ksym __weak;
extern const int no_such_variable __ksym __weak;

extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;
extern int bpf_no_such_function(int a) __ksym __weak;

__u64 address, absent;

SEC("raw_tp/sys_enter")
int symbols(void *ctx)
{
	address = (__u64)&bpf_prog_put;
	absent = (__u64)&no_such_symbol + (__u64)&no_such_variable;
	return 0;
}

SEC("tc")
int functions(struct __sk_buff *skb)
{
	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	if (bpf_no_such_function)
		return bpf_no_such_function(3);
	return 1;
}

SEC("tp_btf/sys_enter")
int tasks(void *ctx)
{
	struct task_struct *task;

	if (!bpf_task_from_pid || !bpf_task_release)
		return 0;
	task = bpf_task_from_pid(1);
	if (task)
		bpf_task_release(task);
	return 0;
}

char _license[] SEC("license") = "GPL";
