/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Names that the kernel defines: of its configuration, its variables and its functions. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern unsigned int LINUX_KERNEL_VERSION __kconfig;
extern _Bool LINUX_HAS_SYSCALL_WRAPPER __kconfig __weak;
extern _Bool LINUX_HAS_BPF_COOKIE __kconfig __weak;
extern _Bool CONFIG_BPF_SYSCALL __kconfig;
extern enum libbpf_tristate CONFIG_BPF_JIT __kconfig;
extern enum libbpf_tristate CONFIG_NO_SUCH_THING __kconfig __weak;
extern char CONFIG_CC_VERSION_TEXT[64] __kconfig __weak;
extern char CONFIG_DEFAULT_HOSTNAME[32] __kconfig __weak;
extern const int CONFIG_HZ __kconfig;
extern unsigned long CONFIG_NR_CPUS __kconfig __weak;
extern __u8 CONFIG_LOG_BUF_SHIFT __kconfig __weak;
extern char CONFIG_MODULES __kconfig __weak;

extern const void bpf_prog_put __ksym;
extern const void no_such_symbol __ksym __weak;
extern const int no_such_variable __ksym __weak;

extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;
extern int bpf_no_such_function(int a) __ksym __weak;

__u64 address, absent;

SEC("tc")
int configured(struct __sk_buff *skb)
{
	int found = LINUX_KERNEL_VERSION >> 16;

	if (CONFIG_BPF_SYSCALL && CONFIG_BPF_JIT == TRI_YES && !CONFIG_NO_SUCH_THING)
		found += CONFIG_HZ;
	if (LINUX_HAS_SYSCALL_WRAPPER)
		found += CONFIG_NR_CPUS;
	if (LINUX_HAS_BPF_COOKIE)
		found++;
	return found + CONFIG_CC_VERSION_TEXT[0] + CONFIG_DEFAULT_HOSTNAME[1] + CONFIG_LOG_BUF_SHIFT +
	       CONFIG_MODULES;
}

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
