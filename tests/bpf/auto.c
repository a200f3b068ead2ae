/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Programs that say where they are attached, and one that does not. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

__u64 raw, probes;

SEC("raw_tp/sys_enter")
int enters(void *ctx)
{
	__sync_fetch_and_add(&raw, 1);
	return 0;
}

SEC("uprobe/libc.so.6:l64a")
int asks(void *ctx)
{
	__sync_fetch_and_add(&probes, 1);
	return 0;
}

SEC("uprobe")
int later(void *ctx)
{
	return 0;
}

SEC("tc")
int filter(void *ctx)
{
	return 0;
}

char _license[] SEC("license") = "GPL";
