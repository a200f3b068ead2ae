#!/usr/bin/env python3
"""One TCP server on many ports and a whole prefix, by an sk_lookup program of its namespace.

Without --netns it makes two namespaces, serves in one and asks from the other. With it, it serves
there until Ctrl-C. With --map too, the program is left to the command line, as many_ports.c has it:
only the server's socket is put into that pinned map. Needs root, Linux 5.9, clang and ip.
"""

from __future__ import annotations

import argparse
import ipaddress
import platform
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from netbpf import Map, NetbpfError, NetNS, loader, netns
from netbpf.netns import links

SOURCE = Path(__file__).with_name("many_ports.c")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def compiled(folder: str) -> str:
    """The object file of many_ports.c."""
    output = f"{folder}/many_ports.o"
    headers = f"-I/usr/include/{platform.machine()}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", headers, "-c", str(SOURCE), "-o", output]
    subprocess.run(command, check=True)
    return output


def ip(place: NetNS, words: str) -> None:
    """Run ``ip`` in a namespace."""
    with netns.entered(place):
        subprocess.run(["ip", *words.split()], check=True)


@contextmanager
def serving(place: NetNS) -> Iterator[socket.socket]:
    """A server in the namespace; it tells each client which address and port that one meant.

    It listens on one port that the kernel chooses. An IPv6 socket gets IPv4 connections as well.
    """
    with netns.entered(place):
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    with listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        try:
            yield listener
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def answer(listener: socket.socket) -> None:
    """Answer one connection after the other until the socket is shut down."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        # A client that has gone is no reason to end.
        with connection, suppress(OSError):
            host, port = connection.getsockname()[:2]
            connection.sendall(f"{host.removeprefix('::ffff:')} port {port}\n".encode())


def put(listener: socket.socket, server: Map) -> None:
    """Let the program's map have the socket, until that is closed."""
    server.update(struct.pack("=I", 0), struct.pack("=Q", listener.fileno()))


@contextmanager
def local(place: NetNS, prefixes: Sequence[Network]) -> Iterator[None]:
    """All addresses of the prefixes are the namespace's own."""
    with ExitStack() as stack:
        for prefix in prefixes:
            ip(place, f"route add local {prefix} dev lo")
            stack.callback(ip, place, f"route del local {prefix} dev lo")
        yield


@contextmanager
def steered(
    place: NetNS, listener: socket.socket, ports: range, prefixes: Sequence[Network]
) -> Iterator[None]:
    """The socket gets the connections to these ports at these prefixes; then no more."""
    with tempfile.TemporaryDirectory() as folder, loader.open(compiled(folder)) as obj:
        obj.set("first_port", ports[0])
        obj.set("last_port", ports[-1])
        # Of a family without a prefix, no address: of the address 0 all bits.
        obj.set("prefix_bits", 32)
        obj.set("prefix6_bits", 128)
        for prefix in prefixes:
            number = int(prefix.network_address)
            if prefix.version == 4:
                obj.set("prefix", number)
                obj.set("prefix_bits", prefix.prefixlen)
            else:
                obj.set("prefix6", struct.unpack("!4I", number.to_bytes(16)))
                obj.set("prefix6_bits", prefix.prefixlen)
        obj.load()
        put(listener, obj.maps["server"])
        placed = links.attach(place, "sk_lookup", obj.programs["many_ports"])
        assert placed.link is not None
        # Closed without a pin, the link takes the program with it.
        with placed.link:
            yield


@contextmanager
def network(prefixes: Sequence[Network]) -> Iterator[tuple[NetNS, NetNS]]:
    """A namespace for the server, and a client's, which reaches the prefixes by way of it."""
    names = [f"many-{end}-{secrets.token_hex(4)}" for end in ("server", "client")]
    with ExitStack() as stack:
        places = []
        for name in names:
            netns.add(name)
            stack.callback(netns.delete, name)
            places.append(stack.enter_context(NetNS.from_name(name)))
        server, client = places
        ip(server, f"link add eth0 type veth peer name eth0 netns {names[1]}")
        for number, place in enumerate(places, 1):
            ip(place, f"addr add 10.216.0.{number}/24 dev eth0")
            ip(place, f"addr add fd00:216::{number}/64 dev eth0 nodad")
            ip(place, "link set lo up")
            ip(place, "link set eth0 up")
        for prefix in prefixes:
            gateway = "10.216.0.1" if prefix.version == 4 else "fd00:216::1"
            ip(client, f"route add {prefix} via {gateway}")
        yield server, client


def ask(place: NetNS, address: str, port: int) -> str:
    """What the server answers to a connection from the namespace; or that it was refused."""
    with netns.entered(place):
        client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with client:
        client.settimeout(5)
        try:
            client.connect((address, port))
        except ConnectionRefusedError:
            return "refused"
        return client.makefile().readline().strip()


def demonstrate(ports: range, prefixes: Sequence[Network]) -> int:
    """Serve in one namespace, ask from another, inside and outside of what is served."""
    first, last = ports[0], ports[-1]
    with network(prefixes) as (server, client), local(server, prefixes), ExitStack() as stack:
        listener = stack.enter_context(serving(server))
        with steered(server, listener, ports, prefixes):
            wrong = 0
            for prefix in prefixes:
                for address in (str(prefix[1]), str(prefix[-2])):
                    for port in (first - 1, first, (first + last) // 2, last, last + 1):
                        if not 0 < port < 1 << 16:
                            continue
                        said = ask(client, address, port)
                        print(f"{address} port {port}: {said}")
                        wanted = f"{address} port {port}" if port in ports else "refused"
                        wrong += said != wanted
            # The server's own address is in none of the prefixes.
            for address in ("10.216.0.1", "fd00:216::1"):
                said = ask(client, address, first)
                print(f"{address} port {first}: {said}")
                wrong += said != "refused"
        said = ask(client, str(prefixes[0][1]), first)
        print(f"without the program: {said}")
        wrong += said != "refused"
    if wrong:
        print(f"{wrong} wrong answers", file=sys.stderr)
    return 1 if wrong else 0


def serve(name: str, pin: str | None, ports: range, prefixes: Sequence[Network]) -> None:
    """Serve in a namespace that is there already, until Ctrl-C or SIGTERM."""
    # Taken from the queue when all is set up, so that all of it is taken back.
    ends = [signal.SIGINT, signal.SIGTERM]
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with NetNS.parse(name) as place, serving(place) as listener, ExitStack() as stack:
        if pin is not None:
            with Map.from_pin(pin) as server:
                put(listener, server)
        else:
            stack.enter_context(local(place, prefixes))
            stack.enter_context(steered(place, listener, ports, prefixes))
        print("serving", flush=True)
        signal.sigwait(ends)


def port_range(text: str) -> range:
    """``7000-7009``, or one port."""
    first, _, last = text.partition("-")
    found = range(int(first), int(last or first) + 1)
    if not found or found[0] < 1 or found[-1] > 65535:
        raise ValueError(f"{text} is no range of ports")
    return found


def main() -> int:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--netns", metavar="NAME", help="serve in this namespace until Ctrl-C")
    parser.add_argument("--map", metavar="PIN", help="with --netns: the map `server`, pinned")
    parser.add_argument("--ports", metavar="FIRST-LAST", type=port_range, default="7000-7009")
    parser.add_argument(
        "--prefix",
        metavar="CIDR",
        type=ipaddress.ip_network,
        nargs="+",
        default=["198.51.100.0/24", "2001:db8:216::/48"],
        help="one of IPv4, one of IPv6",
    )
    asked = parser.parse_args()
    prefixes = [ipaddress.ip_network(each) for each in asked.prefix]
    try:
        if asked.netns is None:
            return demonstrate(asked.ports, prefixes)
        serve(asked.netns, asked.map, asked.ports, prefixes)
    except (NetbpfError, OSError, subprocess.CalledProcessError) as error:
        print(f"many_ports: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
