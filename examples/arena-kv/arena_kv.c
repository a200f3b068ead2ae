/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Answers look-ups out of a table in an arena, before the packet gets anywhere: a UDP datagram to
 * port 7777 with a key goes back to where it came from with the value. User space fills the table.
 * clang 19 or later compiles it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PORT 7777
#define SLOTS 1024
#define PROBES 16
#define TC_NEXT -1
#define __arena __attribute__((address_space(1)))

struct {
	__uint(type, 33); /* BPF_MAP_TYPE_ARENA, which older headers lack */
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16); /* pages */
} arena SEC(".maps");

/*
 * used is the last thing that user space writes of a new entry, the first of one that goes. An entry
 * that changes gets its new value beside the old one, then current says which holds.
 */
struct slot {
	__u64 key;
	__u64 values[2];
	__u8 used;
	__u8 current;
};

struct slot __arena table[SLOTS];
__u64 __arena asked;
__u64 __arena answered;

struct question {
	__u64 key;
	__u64 value;
	__u8 found;
} __attribute__((packed));

struct packet {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct question question;
} __attribute__((packed));

static struct slot __arena *look_up(__u64 key)
{
	__u32 start = key * 0x9E3779B97F4A7C15ull >> 54;

	for (int i = 0; i < PROBES; i++) {
		struct slot __arena *slot = &table[(start + i) % SLOTS];

		if (slot->used && slot->key == key)
			return slot;
	}
	return 0;
}

SEC("tcx/ingress")
int lookup(struct __sk_buff *skb)
{
	struct slot __arena *slot;
	struct packet *packet;
	__u8 mac[ETH_ALEN];
	__be32 address;
	__be16 port;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_pull_data(skb, sizeof(*packet)))
		return TC_NEXT;
	packet = (void *)(long)skb->data;
	if ((void *)(packet + 1) > (void *)(long)skb->data_end)
		return TC_NEXT;
	if (packet->ip.version != 4 || packet->ip.ihl != 5 || packet->ip.protocol != IPPROTO_UDP ||
	    packet->ip.frag_off & bpf_htons(0x3fff) || packet->udp.dest != bpf_htons(PORT) ||
	    packet->udp.len != bpf_htons(sizeof(packet->udp) + sizeof(packet->question)))
		return TC_NEXT;

	__sync_fetch_and_add(&asked, 1);
	slot = look_up(packet->question.key);
	packet->question.found = !!slot;
	packet->question.value = 0;
	if (slot) {
		packet->question.value = slot->values[slot->current & 1];
		__sync_fetch_and_add(&answered, 1);
	}

	__builtin_memcpy(mac, packet->eth.h_dest, ETH_ALEN);
	__builtin_memcpy(packet->eth.h_dest, packet->eth.h_source, ETH_ALEN);
	__builtin_memcpy(packet->eth.h_source, mac, ETH_ALEN);
	/* The sum over the header stays what it was: only the order of its parts changes. */
	address = packet->ip.daddr;
	packet->ip.daddr = packet->ip.saddr;
	packet->ip.saddr = address;
	port = packet->udp.dest;
	packet->udp.dest = packet->udp.source;
	packet->udp.source = port;
	packet->udp.check = 0;
	return bpf_redirect(skb->ifindex, 0);
}

char _license[] SEC("license") = "GPL";
