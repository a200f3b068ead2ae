/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A value that no configuration has. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int CONFIG_NO_SUCH_THING __kconfig;

SEC("tc")
int reads(struct __sk_buff *skb)
{
	return CONFIG_NO_SUCH_THING;
}

char _license[] SEC("license") = "GPL";
