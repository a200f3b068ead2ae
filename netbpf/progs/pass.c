/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Lets every packet pass and ends the chain. */
#include "tc.h"

SEC("tc")
int pass(struct __sk_buff *skb)
{
	return PASS;
}
