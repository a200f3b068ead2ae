/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Two more of trace.c's kind, for longer chains. */
#include "trace.c"

SEC("tc")
int four(struct __sk_buff *skb)
{
	return write_down(skb, 4);
}

SEC("tc")
int five(struct __sk_buff *skb)
{
	return write_down(skb, 5);
}
