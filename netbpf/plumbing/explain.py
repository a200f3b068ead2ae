"""What an errno of the kernel means, for each operation of netbpf that may meet it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from netbpf.bpf import mprog_conditions
from netbpf.conditions import Condition, listed
from netbpf.errors import errno_name
from netbpf.netkit import change, lease_refusal, request
from netbpf.netkit.hooks import HOOKS
from netbpf.netns import link_refusal

OPERATIONS = (
    "attach",
    "detach",
    "update",
    "show",
    "netkit-add",
    "netkit-set",
    "lease-add",
    "netns-attach",
    "netns-detach",
    "netns-update",
    "netns-show",
)
"""What can be asked about: changes and reading of chains, netkit devices, leases, and of what
hangs at namespaces."""


def number_of(text: str) -> int:
    """The errno that is written ``EEXIST``, ``eexist``, ``17`` or ``-17``.

    :raises ValueError: there is none such.
    """
    if re.fullmatch(r"-?[0-9]{1,4}", text):
        number = abs(int(text))
    else:
        # ENOTSUPP is the kernel's alone, the C library has no name for it.
        names = {"ENOTSUPP": 524, **{name: getattr(errno, name) for name in dir(errno)}}
        number = names.get(text.upper(), 0) if text.upper().startswith("E") else 0
    if errno_name(number).startswith("errno "):
        raise ValueError(f"{text} is no errno: write EEXIST, or its number")
    return number


def explain(number: int, operation: str | None = None) -> list[Condition]:
    """The conditions under which the kernel gives that errno, to one operation or to any.

    :raises ValueError: there is no such operation.
    """
    if operation is not None and operation not in OPERATIONS:
        raise ValueError(f"no operation {operation}: it is one of {', '.join(OPERATIONS)}")
    return [each for each in _all() if each.errno == number and operation in (None, each.operation)]


def _all() -> Iterator[Condition]:
    yield from listed(mprog_conditions.ROWS)
    # Both sides refuse alike.
    for number, (reason, hint) in HOOKS.hook("peer").refusals.items():
        for operation in ("attach", "detach", "update", "show"):
            yield Condition(operation, number, reason, hint, "drivers/net/netkit.c")
    for operation, meanings in (
        ("netkit-add", request.ADD_MEANINGS),
        ("netkit-set", change.SET_MEANINGS),
    ):
        for number, meaning in meanings.items():
            yield Condition(operation, number, meaning.reason, meaning.hint, "drivers/net/netkit.c")
    yield from lease_refusal.conditions()
    yield from listed(link_refusal.ROWS)
