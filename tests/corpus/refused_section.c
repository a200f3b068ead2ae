/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A section's name that says no program type. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("no/such/section")
int lost(void *ctx)
{
	return 0;
}

char _license[] SEC("license") = "GPL";
