"""``prog run --lookup``: which socket a connection gets of an sk_lookup program, unmade."""

from __future__ import annotations

import ipaddress
import socket

from netbpf.cli.output import emit, say

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


def run(
    ref: str, variables: list[str], local: str, remote: str | None, protocol: str, repeat: int
) -> None:
    """Ask the program, and tell what it answers."""
    from netbpf.bpf.test_lookup import Lookup, verdict
    from netbpf.cli import references
    from netbpf.netns.hooks import hook_of

    if protocol not in _PROTOCOLS:
        raise ValueError(f"--protocol: it is {' or '.join(_PROTOCOLS)}, not {protocol}")
    asked = Lookup(
        _end("--lookup", local),
        _end("--from", remote) if remote is not None else None,
        _PROTOCOLS[protocol],
    )
    with references.program(ref, variables, hook_of("sk_lookup")) as program:
        result = program.test_lookup(asked, repeat=repeat)
    word = verdict(result.retval)
    document = {
        "protocol": protocol,
        "local": _written(asked.local),
        "remote": _written(asked.remote) if asked.remote else None,
        "retval": result.retval,
        "verdict": word,
        "socket": result.cookie,
        "duration_ns": result.duration,
    }
    chosen = "no socket" if result.cookie is None else f"the socket with cookie {result.cookie}"
    words = f"{protocol} {document['local']}: {word}, {chosen} ({result.duration} ns)"
    emit({"lookup": document}, lambda: say(words))


def _end(option: str, text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    try:
        found = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        # An address of IPv6 has colons too: without brackets its end would be taken for a port.
        if (found.version == 6) != address.startswith("[") or not port.isascii():
            raise ValueError
        return str(found), int(port)
    except ValueError:
        raise ValueError(f"{option} {text}: it is written ADDRESS:PORT or [ADDRESS]:PORT") from None


def _written(end: tuple[str, int]) -> str:
    address, port = end
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
