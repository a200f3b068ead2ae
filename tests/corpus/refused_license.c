/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A helper for the GPL's programs only, without its license. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("raw_tp/sys_enter")
int reads(void *ctx)
{
	return bpf_get_current_task() != 0;
}

char _license[] SEC("license") = "Proprietary";
