"""Netlink: rtnl requests, devices, addresses, namespace ids, the netkit link kind.

The only room that imports pyroute2, and only where a family is worth its 120 ms of CPU: such a
module does so at the top, so whoever needs it imports it where it is used, not before. What every
command with devices needs is packed by hand (`attributes`); the socket is netbpf's own
(`rtnl.Rtnl`).
"""
