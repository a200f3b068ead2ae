/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Gives the one socket in the map `server` all TCP connections to many ports, at a whole prefix.
 *
 *     clang -O2 -g -target bpf -I/usr/include/$(uname -m)-linux-gnu -c many_ports.c
 *     netbpf prog load many_ports.o --pin /sys/fs/bpf/many --set last_port=7009
 *     netbpf netns attach web sk_lookup pin:/sys/fs/bpf/many/many_ports
 *
 * The kernel asks it where it would look for a listening socket, so nothing has to listen on any of
 * the ports, and the server sees which address and port were meant. The addresses must be local
 * (`ip route add local PREFIX dev lo`). Connections that are there already are not asked about.
 */
#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2

/* netbpf ... --set last_port=7009 --set prefix=0xc6336400 --set prefix_bits=24 changes these: ports
 * and addresses in host byte order. Of 0 bits, which is the default, any address is one.
 */
const volatile __u16 first_port = 7000;
const volatile __u16 last_port = 7999;
const volatile __u32 prefix = 0;
const volatile __u32 prefix_bits = 0;
const volatile __u32 prefix6[4] = {};
const volatile __u32 prefix6_bits = 0;

/* A socket leaves it when it is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} server SEC(".maps");

/* Whether the first `bits` bits of a word of an address are as wanted; there may be more, or none. */
static __always_inline int alike(__u32 word, __u32 wanted, int bits)
{
	__u32 differ = bpf_ntohl(word) ^ wanted;

	if (bits <= 0)
		return 1;
	return bits >= 32 ? !differ : !(differ >> (32 - bits));
}

static __always_inline int in_prefix(struct bpf_sk_lookup *ctx)
{
	int bits = prefix6_bits;

	if (ctx->family == AF_INET)
		return alike(ctx->local_ip4, prefix, prefix_bits);
	return alike(ctx->local_ip6[0], prefix6[0], bits) &&
	       alike(ctx->local_ip6[1], prefix6[1], bits - 32) &&
	       alike(ctx->local_ip6[2], prefix6[2], bits - 64) &&
	       alike(ctx->local_ip6[3], prefix6[3], bits - 96);
}

SEC("sk_lookup")
int many_ports(struct bpf_sk_lookup *ctx)
{
	struct bpf_sock *listener;
	__u32 key = 0;

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	if (ctx->local_port < first_port || ctx->local_port > last_port || !in_prefix(ctx))
		return SK_PASS;

	/* Without a server, as with all that is none of its own, the kernel looks further by itself. */
	listener = bpf_map_lookup_elem(&server, &key);
	if (listener) {
		/* Refused where another program has selected one, which then counts. */
		bpf_sk_assign(ctx, listener, 0);
		bpf_sk_release(listener);
	}
	return SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
