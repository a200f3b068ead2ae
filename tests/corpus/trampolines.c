/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Programs at the entry and the exit of a kernel function. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

__u64 seen;

SEC("fentry/vfs_read")
int enters(unsigned long long *ctx)
{
	seen += ctx[2];
	return 0;
}

SEC("fexit/vfs_read")
int leaves(unsigned long long *ctx)
{
	seen += ctx[4];
	return 0;
}

char _license[] SEC("license") = "GPL";
