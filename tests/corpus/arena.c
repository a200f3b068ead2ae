/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* An arena with variables of its own. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define __arena __attribute__((address_space(1)))
#ifndef __ulong
#define __ulong(name, val) enum { ___bpf_concat_##name = val } name
#endif

struct {
	__uint(type, 33 /* BPF_MAP_TYPE_ARENA */);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 10);
	__ulong(map_extra, 0x1ull << 44);
} arena SEC(".maps");

int __arena counter = 7;
char __arena text[20] = "in the arena";

SEC("syscall")
int counts(void *ctx)
{
	counter++;
	return text[1];
}

char _license[] SEC("license") = "GPL";
