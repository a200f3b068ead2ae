/* Programs whose return codes and helpers tests/unit/test_lint.py and test_lint.py look for. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NEXT -1

const volatile int mode = 1;
const volatile __u32 target = 1;
int changing = 1;
int assigned = 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, int);
} verdicts SEC(".maps");

SEC("tc")
int ternary(struct __sk_buff *skb)
{
	return skb->len > 100 ? TC_ACT_STOLEN : NEXT;
}

SEC("tc")
int a_bit(struct __sk_buff *skb)
{
	return (skb->mark & 1) ? TC_ACT_STOLEN : TC_ACT_OK;
}

SEC("tc")
int a_switch(struct __sk_buff *skb)
{
	switch (skb->protocol) {
	case 1:
		return TC_ACT_OK;
	case 2:
		return TC_ACT_SHOT;
	case 3:
		return TC_ACT_PIPE;
	case 9:
		return TC_ACT_RECLASSIFY;
	case 11:
		return 4711;
	}
	return NEXT;
}

static __attribute__((noinline)) int verdict(int kind, int len)
{
	if (kind == 1)
		return len > 5 ? TC_ACT_PIPE : TC_ACT_OK;
	return TC_ACT_SHOT;
}

SEC("tc")
int by_function(struct __sk_buff *skb)
{
	return verdict(1, skb->len);
}

/* The branch with PIPE is closed to this one. */
SEC("tc")
int closed_function(struct __sk_buff *skb)
{
	if (skb->mark)
		return verdict(0, skb->len);
	return verdict(2, skb->mark);
}

static __attribute__((noinline)) int inner(struct __sk_buff *skb, int what)
{
	if (what == TC_ACT_QUEUED && skb->mark)
		return what;
	return NEXT;
}

static __attribute__((noinline)) int outer(struct __sk_buff *skb, int what)
{
	return skb->len > 9 ? inner(skb, what) : TC_ACT_OK;
}

SEC("tc")
int deep_function(struct __sk_buff *skb)
{
	return outer(skb, TC_ACT_QUEUED);
}

SEC("tc")
int a_loop(struct __sk_buff *skb)
{
	int sum = 0;

	for (int i = 0; i < 30 && i < (int)skb->len; i++)
		sum += skb->hash >> i & 1;
	return sum > 7 ? TC_ACT_TRAP : TC_ACT_OK;
}

SEC("tc")
int spilled(struct __sk_buff *skb)
{
	volatile int code = TC_ACT_STOLEN;

	bpf_skb_pull_data(skb, 20);
	return code;
}

/* The helper writes over what was on the stack. */
SEC("tc")
int overwritten(struct __sk_buff *skb)
{
	int code = TC_ACT_STOLEN;

	bpf_skb_load_bytes(skb, 0, &code, sizeof(code));
	return code;
}

SEC("tc")
int constant(struct __sk_buff *skb)
{
	if (mode == 2)
		return TC_ACT_STOLEN;
	if (mode == 3)
		return bpf_redirect_peer(1, 0);
	return TC_ACT_OK;
}

SEC("tc")
int variable(struct __sk_buff *skb)
{
	return changing;
}

SEC("tc")
int from_map(struct __sk_buff *skb)
{
	__u32 key = 1;
	int *code = bpf_map_lookup_elem(&verdicts, &key);

	return code ? *code : NEXT;
}

/* On the path to "return code" it is never STOLEN: done is set wherever it is. */
SEC("tc")
int correlated(struct __sk_buff *skb)
{
	int code = TC_ACT_OK, done = 0;

	if (skb->mark == 7) {
		code = TC_ACT_STOLEN;
		done = 1;
	}
	bpf_skb_pull_data(skb, 20);
	if (done)
		return NEXT;
	return code;
}

SEC("tc")
int checked(struct __sk_buff *skb)
{
	int code = bpf_redirect(1, 0);

	return code == TC_ACT_STOLEN ? TC_ACT_STOLEN : code;
}

SEC("tc")
int redirect_peer(struct __sk_buff *skb)
{
	return bpf_redirect_peer(target, 0);
}

SEC("tc")
int redirect_in(struct __sk_buff *skb)
{
	return bpf_redirect(target, BPF_F_INGRESS);
}

SEC("tc")
int sk_assign(struct __sk_buff *skb)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;

	tuple.ipv4.dport = bpf_htons(9);
	sk = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return TC_ACT_OK;
	assigned = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
