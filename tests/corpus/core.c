/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A CO-RE relocation of every kind against the types of the running kernel. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define CORE __attribute__((preserve_access_index))

struct list_head {
	struct list_head *next, *prev;
} CORE;
struct net_device {
	int ifindex;
	char name[16];
	unsigned int mtu;
} CORE;
struct sk_buff {
	unsigned int len;
	struct net_device *dev;
	__u8 pkt_type : 3;
	__u8 ip_summed : 2;
	__u16 protocol;
	union {
		unsigned int mark;
		unsigned int reserved_tailroom;
	};
} CORE;
struct mm_struct___other {
	unsigned long no_such_member;
} CORE;
struct task_struct___local {
	int pid, tgid;
	char comm[16];
	struct task_struct___local *group_leader;
	struct list_head tasks;
	unsigned int in_execve : 1;
} CORE;
struct task_struct___none {
	long never_there;
} CORE;
struct no_such_struct {
	int x;
} CORE;
struct sock_common {
	union {
		struct {
			unsigned int skc_daddr;
			unsigned int skc_rcv_saddr;
		};
	};
	unsigned short skc_family;
	unsigned char skc_reuse : 4;
} CORE;
struct sock {
	struct sock_common __sk_common;
	int sk_rcvbuf;
} CORE;
enum bpf_map_type___k {
	BPF_MAP_TYPE_HASH___k = 100,
	BPF_MAP_TYPE_NO_SUCH___k = 101,
};
enum no_such_enum { NO_SUCH_VALUE = 1 };
typedef int pid_t;
typedef long no_such_typedef;

long out[16];

SEC("raw_tp/sys_enter")
int members(void *ctx)
{
	struct task_struct___local *task = (void *)bpf_get_current_task();
	int pid = BPF_CORE_READ(task, group_leader, tgid);
	char comm[16];

	BPF_CORE_READ_STR_INTO(&comm, task, comm);
	out[0] = pid + comm[0];
	out[1] = BPF_CORE_READ_BITFIELD_PROBED(task, in_execve);
	out[2] = (long)BPF_CORE_READ(task, tasks.next);
	out[3] = bpf_core_field_offset(task->comm[3]) + bpf_core_field_size(task->comm);
	return 0;
}

SEC("raw_tp/net_dev_queue")
int bits(unsigned long long *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];

	out[4] = BPF_CORE_READ_BITFIELD_PROBED(skb, pkt_type);
	out[5] = BPF_CORE_READ_BITFIELD_PROBED(skb, ip_summed);
	out[6] = BPF_CORE_READ(skb, mark) + BPF_CORE_READ(skb, protocol);
	out[7] = BPF_CORE_READ(skb, dev, ifindex) + BPF_CORE_READ(skb, dev, name[2]);
	return 0;
}

SEC("raw_tp/sys_exit")
int questions(void *ctx)
{
	struct task_struct___none *none = (void *)bpf_get_current_task();
	struct sock *sk = (void *)none;

	out[8] = bpf_core_type_exists(struct no_such_struct) + bpf_core_type_size(struct sock);
	out[9] = bpf_core_field_exists(none->never_there) + bpf_core_field_exists(sk->sk_rcvbuf);
	out[10] = bpf_core_enum_value_exists(enum bpf_map_type___k, BPF_MAP_TYPE_NO_SUCH___k);
	out[11] = bpf_core_enum_value(enum bpf_map_type___k, BPF_MAP_TYPE_HASH___k);
	out[12] = bpf_core_type_exists(enum no_such_enum) + bpf_core_type_exists(no_such_typedef);
	out[13] = bpf_core_type_id_kernel(struct sock) + bpf_core_type_id_local(struct sock);
	out[14] = bpf_core_type_exists(pid_t) + bpf_core_type_size(struct no_such_struct);
	/* Never reached on a kernel without the member. */
	if (bpf_core_field_exists(none->never_there))
		out[15] = BPF_CORE_READ(none, never_there);
	out[15] += BPF_CORE_READ_BITFIELD_PROBED(sk, __sk_common.skc_reuse);
	out[15] += BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
	return 0;
}

static __noinline long in_a_function(struct sk_buff *skb)
{
	return BPF_CORE_READ(skb, len) + bpf_core_field_exists(skb->dev);
}

SEC("raw_tp/netif_rx")
int called(unsigned long long *ctx)
{
	return in_a_function((void *)ctx[0]) > 0 ? 0 : 0;
}

char _license[] SEC("license") = "GPL";
