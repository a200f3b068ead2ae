/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Programs that want something of a kernel module: functions, types and places to be attached to. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#define READ __attribute__((preserve_access_index))

struct nf_conn { unsigned long status; } READ;
struct ns_common { unsigned int inum; } READ;
struct net { struct ns_common ns; } READ;
struct nf_hook_state { unsigned char pf; struct net *net; } READ;

/* As nf_conntrack has it since Linux 5.18; a longer one is the kernel's affair. */
struct bpf_ct_opts___first {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

/* Only the module has it: the members stand elsewhere than here. */
struct bpf_ct_opts___other {
	__u8 dir;
	__s32 error;
	__u8 l4proto;
} READ;

struct bpf_xfrm_info___own {
	__u32 if_id;
	int link;
};

struct bpf_sock_tuple tuple;
unsigned int namespace;
int error, status, offset, size;
unsigned long long entered, left, probed;

#ifdef LOOKUP
struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *ctx, struct bpf_sock_tuple *tuple, __u32 size,
				  struct bpf_ct_opts___first *opts, __u32 opts_size) __ksym;
struct nf_conn *bpf_xdp_ct_lookup(struct xdp_md *ctx, struct bpf_sock_tuple *tuple, __u32 size,
				  struct bpf_ct_opts___first *opts, __u32 opts_size) __ksym;
void bpf_ct_release(struct nf_conn *ct) __ksym;

#define LOOK_UP(how, ctx)                                                                     \
	do {                                                                                  \
		struct bpf_ct_opts___first opts = {.netns_id = -1, .l4proto = 17};            \
		struct bpf_sock_tuple wanted = tuple;                                         \
		struct nf_conn *ct = how(ctx, &wanted, sizeof(wanted.ipv4), &opts, sizeof(opts)); \
                                                                                              \
		error = opts.error;                                                           \
		if (!ct)                                                                      \
			return 0;                                                             \
		status = ct->status;                                                          \
		bpf_ct_release(ct);                                                           \
		return 1;                                                                     \
	} while (0)

SEC("tc")
int looks_up(struct __sk_buff *skb)
{
	LOOK_UP(bpf_skb_ct_lookup, skb);
}

SEC("xdp")
int looks_up_early(struct xdp_md *xdp)
{
	LOOK_UP(bpf_xdp_ct_lookup, xdp);
}
#endif

#ifdef ALLOC
struct nf_conn___init { struct nf_conn ct; };
struct nf_conn___init *bpf_skb_ct_alloc(struct __sk_buff *ctx, struct bpf_sock_tuple *tuple, __u32 size,
					struct bpf_ct_opts___first *opts, __u32 opts_size) __ksym;
struct nf_conn *bpf_ct_insert_entry(struct nf_conn___init *ct) __ksym;
void bpf_ct_set_timeout(struct nf_conn___init *ct, __u32 timeout) __ksym;
void bpf_ct_release(struct nf_conn *ct) __ksym;
int bpf_skb_get_xfrm_info(struct __sk_buff *ctx, struct bpf_xfrm_info___own *to) __ksym;

/* Functions of two modules in one program. */
SEC("tc")
int makes(struct __sk_buff *skb)
{
	struct bpf_ct_opts___first opts = {.netns_id = -1, .l4proto = 17};
	struct bpf_xfrm_info___own info = {};
	struct bpf_sock_tuple wanted = tuple;
	struct nf_conn___init *made = bpf_skb_ct_alloc(skb, &wanted, sizeof(wanted.ipv4), &opts, sizeof(opts));
	struct nf_conn *ct;

	error = opts.error;
	if (!made)
		return 0;
	bpf_ct_set_timeout(made, 10000);
	ct = bpf_ct_insert_entry(made);
	if (!ct)
		return 0;
	bpf_ct_release(ct);
	status = bpf_skb_get_xfrm_info(skb, &info);
	return 1;
}
#endif

#ifdef TYPES
SEC("tc")
int measures(struct __sk_buff *skb)
{
	size = bpf_core_type_size(struct bpf_ct_opts___other);
	offset = bpf_core_field_offset(struct bpf_ct_opts___other, l4proto);
	return bpf_core_type_exists(struct bpf_ct_opts___other);
}
#endif

#ifdef FUNCTIONS
static int ours(unsigned long long *ctx)
{
	struct nf_hook_state *state = (void *)ctx[1];

	return state->net->ns.inum == namespace;
}

SEC("fentry/nf_conntrack_in")
int on_entry(unsigned long long *ctx)
{
	if (ours(ctx))
		__sync_fetch_and_add(&entered, 1);
	return 0;
}

SEC("fexit/nf_conntrack:nf_conntrack_in")
int on_exit(unsigned long long *ctx)
{
	/* The verdict stands behind the arguments: NF_ACCEPT. */
	if (ours(ctx) && ctx[2] == 1)
		__sync_fetch_and_add(&left, 1);
	return 0;
}

SEC("kprobe/nf_conntrack_in")
int on_probe(void *ctx)
{
	__sync_fetch_and_add(&probed, 1);
	return 0;
}
#endif

#if defined(WEAK) || defined(STRONG)
#ifdef STRONG
#define WEAK_OR_NOT
#else
#define WEAK_OR_NOT __weak
#endif

int bpf_skb_get_xfrm_info(struct __sk_buff *ctx, struct bpf_xfrm_info___own *to) __ksym WEAK_OR_NOT;

SEC("tc")
int asks(struct __sk_buff *skb)
{
	struct bpf_xfrm_info___own info = {};

#ifndef STRONG
	if (!bpf_skb_get_xfrm_info)
		return 77;
#endif
	return bpf_skb_get_xfrm_info(skb, &info) < 0;
}
#endif

char _license[] SEC("license") = "GPL";
