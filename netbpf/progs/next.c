/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Does nothing: the next program of the chain decides. */
#include "tc.h"

SEC("tc")
int next(struct __sk_buff *skb)
{
	return NEXT;
}
