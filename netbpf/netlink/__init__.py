"""Netlink: rtnl requests, devices, addresses, namespace ids, the netkit link kind.

The only room that imports pyroute2, which costs 120 ms of CPU: its modules do so at the top, so
whoever needs one imports it where it is used, not before. From pyroute2 come the messages; the
socket is netbpf's own (`rtnl.Rtnl`).
"""
