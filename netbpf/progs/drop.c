/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Drops every packet. */
#include "tc.h"

SEC("tc")
int drop(struct __sk_buff *skb)
{
	return DROP;
}
