/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* All that an object can want of a kernel: structs of programs, values, symbols, types. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

struct sock;

struct tcp_congestion_ops {
	void (*init)(struct sock *sk);
	__u32 (*ssthresh)(struct sock *sk);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
	__u32 flags;
} __attribute__((preserve_access_index));

struct sk_buff {
	unsigned int len;
	struct {
		int x;
	} *inner;
	int table[4];
} __attribute__((preserve_access_index));

enum color { RED = 1, GREEN = 5 };

extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool CONFIG_BPF __kconfig;
extern enum libbpf_tristate CONFIG_IPV6 __kconfig __weak;
extern char CONFIG_DEFAULT_HOSTNAME[32] __kconfig __weak;
extern unsigned long CONFIG_HZ __kconfig;
extern const void bpf_prog_fops __ksym;
extern const int bpf_prog_active __ksym __weak;
extern void bpf_rcu_read_lock(void) __ksym;
extern int bpf_not_there(struct sk_buff *skb, int) __ksym __weak;

SEC("struct_ops/init")
void my_init(unsigned long long *ctx)
{
}

SEC("struct_ops")
__u32 my_ssthresh(unsigned long long *ctx)
{
	return 4;
}

SEC(".struct_ops.link")
struct tcp_congestion_ops mine = {
	.init = (void *)my_init,
	.ssthresh = (void *)my_ssthresh,
	.name = "mine",
	.flags = 3,
};

SEC("?.struct_ops")
struct tcp_congestion_ops other = {
	.ssthresh = (void *)my_ssthresh,
	.name = "other",
};

SEC("fentry.s/tcp_connect")
long fetches(unsigned long long *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];
	long found = skb->len + skb->inner->x + skb->table[2];

	found += bpf_core_enum_value(enum color, GREEN) + bpf_core_type_exists(struct sk_buff);
	found += bpf_core_field_exists(skb->len) + bpf_core_field_size(skb->table);
	if (CONFIG_BPF && LINUX_KERNEL_VERSION > 4 && CONFIG_IPV6 && CONFIG_DEFAULT_HOSTNAME[1])
		found += CONFIG_HZ;
	if (&bpf_prog_active)
		found++;
	found += (long)&bpf_prog_fops;
	bpf_rcu_read_lock();
	if (bpf_not_there)
		bpf_not_there(0, 1);
	return found;
}

char _license[] SEC("license") = "GPL";
