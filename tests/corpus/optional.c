/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* An object of which nothing is loaded unless it is asked for. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("?tc")
int passes(void *ctx)
{
	return 0;
}

SEC("?xdp")
int drops(void *ctx)
{
	return 1;
}

char _license[] SEC("license") = "GPL";
