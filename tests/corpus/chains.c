/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Sections that libbpf has since the chains of tcx and netkit. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define PROGRAM(section, name)                                                                     \
	SEC(section) int name(void *ctx)                                                           \
	{                                                                                          \
		return 0;                                                                          \
	}

PROGRAM("tc/ingress", tc_ingress)
PROGRAM("tc/egress", tc_egress)
PROGRAM("tcx/ingress", tcx_ingress)
PROGRAM("tcx/egress", tcx_egress)
PROGRAM("netkit/primary", netkit_primary)
PROGRAM("netkit/peer", netkit_peer)

char _license[] SEC("license") = "GPL";
