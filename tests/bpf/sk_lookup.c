/* Programs for a namespace's sk_lookup, whose effect the loader sets before they are loaded. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

const volatile __u16 port = 7000;
const volatile __s32 slot = 0; /* of the socket to select; below 0 none */
const volatile __u64 flags = 0; /* of bpf_sk_assign */
const volatile __u32 verdict = SK_PASS;

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} servers SEC(".maps");

__u64 runs = 0;
long assigned = 0;
/* What the program was asked about; addresses and the remote port in network byte order. */
__u32 family = 0, protocol = 0, remote_port = 0, ip4[2] = {}, ip6[8] = {};

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	struct bpf_sock *listener;
	__u32 key = slot;

	if (ctx->local_port != port)
		return SK_PASS;
	__sync_fetch_and_add(&runs, 1);
	family = ctx->family;
	protocol = ctx->protocol;
	remote_port = ctx->remote_port;
	ip4[0] = ctx->local_ip4;
	ip4[1] = ctx->remote_ip4;
	ip6[0] = ctx->local_ip6[0];
	ip6[3] = ctx->local_ip6[3];
	ip6[4] = ctx->remote_ip6[0];
	ip6[7] = ctx->remote_ip6[3];
	if (slot < 0)
		return verdict;
	listener = bpf_map_lookup_elem(&servers, &key);
	if (!listener)
		return SK_DROP;
	assigned = bpf_sk_assign(ctx, listener, flags);
	bpf_sk_release(listener);
	return verdict;
}

char LICENSE[] SEC("license") = "GPL";
