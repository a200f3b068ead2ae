/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Programs whose answer decides. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("lsm/socket_create")
int creates(unsigned long long *ctx)
{
	return 0;
}

SEC("lsm.s/file_open")
int opens(unsigned long long *ctx)
{
	return 0;
}

SEC("fmod_ret/security_socket_create")
int changes(unsigned long long *ctx)
{
	return 0;
}

char _license[] SEC("license") = "GPL";
