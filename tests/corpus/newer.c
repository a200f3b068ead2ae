/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Sections that libbpf has since 1.2 and later. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define PROGRAM(section, name, value)                                                              \
	SEC(section) int in_##name(void *ctx)                                                      \
	{                                                                                          \
		return value;                                                                      \
	}

PROGRAM("netfilter", netfilter, 1)
PROGRAM("uprobe.multi//bin/true:main", uprobe_multi, 0)
PROGRAM("uretprobe.multi.s//bin/true:main", uretprobe_multi, 0)
PROGRAM("kprobe.session/vfs_*", kprobe_session, 0)
PROGRAM("uprobe.session//bin/true:main", uprobe_session, 0)
PROGRAM("cgroup/connect_unix", connect_unix, 1)
PROGRAM("cgroup/sendmsg_unix", sendmsg_unix, 1)
PROGRAM("cgroup/getsockname_unix", getsockname_unix, 1)
PROGRAM("sk_skb/verdict", verdict, 1)

char _license[] SEC("license") = "GPL";
