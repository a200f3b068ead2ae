/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The little that the built-in programs need, so that clang alone compiles them. */
#ifndef NETBPF_TC_H
#define NETBPF_TC_H

typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

/* include/uapi/linux/bpf.h: enum tcx_action_base; netkit gives the same numbers the same meaning. */
enum {
	NEXT = -1,
	PASS = 0,
	DROP = 2,
};

/* The first member of the context of a sched_cls program is the packet's length in bytes. */
struct __sk_buff {
	u32 len;
};

char LICENSE[] SEC("license") = "GPL";

#endif
