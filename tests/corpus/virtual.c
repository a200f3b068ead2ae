/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Values that are made up for the kernel's configuration. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern unsigned int LINUX_KERNEL_VERSION __kconfig;
extern _Bool LINUX_HAS_SYSCALL_WRAPPER __kconfig __weak;
extern _Bool LINUX_HAS_BPF_COOKIE __kconfig __weak;

SEC("tc")
int reads(struct __sk_buff *skb)
{
	int found = LINUX_KERNEL_VERSION >> 16;

	if (LINUX_HAS_SYSCALL_WRAPPER)
		found += skb->len;
	if (LINUX_HAS_BPF_COOKIE)
		found++;
	return found;
}

char _license[] SEC("license") = "GPL";
