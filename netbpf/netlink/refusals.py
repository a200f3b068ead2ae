"""What a refused request is called: the kernel's errno and extack, what they mean, what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from netbpf.errors import NetlinkError
from netbpf.netlink.rtnl import Refusal

NEEDS_NET_ADMIN = "it needs CAP_NET_ADMIN in the user namespace that owns the network namespace"


@dataclass(frozen=True)
class Meaning:
    """What an errno means for one operation: the condition that held, and the next step."""

    reason: str
    hint: str | None = None


@contextmanager
def refusals(operation: str, meanings: Mapping[int, Meaning] | None = None) -> Iterator[None]:
    """Turn a `Refusal` inside the block into a NetlinkError about ``operation``.

    The kernel's own text comes first; where it gives none, ``meanings`` tells by errno what held.
    """
    try:
        yield
    except Refusal as error:
        raise explained(operation, error, meanings) from error


def explained(
    operation: str, refusal: Refusal, meanings: Mapping[int, Meaning] | None = None
) -> NetlinkError:
    """The NetlinkError for ``refusal`` of ``operation``; see `refusals`."""
    number = refusal.errno or 0
    meaning = (meanings or {}).get(number)
    hint = meaning.hint if meaning else None
    if hint is None and number == errno.EPERM:
        hint = NEEDS_NET_ADMIN
    return NetlinkError(
        operation,
        number,
        refusal.extack or (meaning.reason if meaning else None),
        hint=hint,
        extack=refusal.extack,
    )
