/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Values of the kernel's configuration, of every type, there and not. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern _Bool CONFIG_BPF_SYSCALL __kconfig;
extern enum libbpf_tristate CONFIG_BPF_JIT __kconfig;
extern enum libbpf_tristate CONFIG_NO_SUCH_THING __kconfig __weak;
extern char CONFIG_CC_VERSION_TEXT[64] __kconfig __weak;
extern char CONFIG_DEFAULT_HOSTNAME[32] __kconfig __weak;
extern const int CONFIG_HZ __kconfig;
extern unsigned long CONFIG_NR_CPUS __kconfig __weak;
extern __u8 CONFIG_LOG_BUF_SHIFT __kconfig __weak;
extern char CONFIG_MODULES __kconfig __weak;

SEC("tc")
int reads(struct __sk_buff *skb)
{
	int found = 0;

	if (CONFIG_BPF_SYSCALL && CONFIG_BPF_JIT == TRI_YES && !CONFIG_NO_SUCH_THING)
		found += CONFIG_HZ;
	return found + CONFIG_NR_CPUS + CONFIG_CC_VERSION_TEXT[0] + CONFIG_DEFAULT_HOSTNAME[1] +
	       CONFIG_LOG_BUF_SHIFT + CONFIG_MODULES;
}

char _license[] SEC("license") = "GPL";
