"""A generic netlink socket of one family: its number found by name, its commands asked."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from functools import cache
from typing import Any, ClassVar

from netbpf.errors import NotSupportedError
from netbpf.netlink.attributes import attribute, number_in, text, unpack
from netbpf.netlink.rtnl import Refusal, Rtnl

_NETLINK_GENERIC = 16
_GENL_ID_CTRL = 16
_CTRL_CMD_GETFAMILY = 3
# enum in include/uapi/linux/genetlink.h
_FAMILY_ID, _FAMILY_NAME, _OPS = 1, 2, 6
_OP_ID = 1

_HEADER = struct.Struct("=BBxx")
"""struct genlmsghdr: command, version."""
_VERSION = 1


class Genl(Rtnl):
    """A generic netlink socket of the namespace in which the calling thread is when it is opened.

    :raises NotSupportedError: this kernel has no such family.
    """

    protocol: ClassVar[int] = _NETLINK_GENERIC

    def __init__(self, family: str) -> None:
        super().__init__()
        try:
            self.family = family
            self._number, self._commands = _resolve(family)
        except BaseException:
            self.close()
            raise

    def has(self, command: int) -> bool:
        """Whether the kernel's family has ``command``."""
        return command in self._commands

    def call(self, command: int, attributes: bytes) -> list[dict[int, bytes]]:
        """Send a request and return the attributes of each answer by number.

        :raises Refusal: the kernel refused.
        """
        return _taken(self.request(self._number, _HEADER.pack(command, _VERSION) + attributes))

    def list_all(self, command: int, attributes: bytes = b"") -> list[dict[int, bytes]]:
        """Send a dump request and return the attributes of each that the kernel lists.

        :raises Refusal: the kernel refused.
        """
        return _taken(self.dump(self._number, _HEADER.pack(command, _VERSION) + attributes))

    def ask(self, command: int, message: Any, attributes: Iterable[tuple[str, Any]]) -> list[Any]:
        """Send ``message`` (of pyroute2) and return the decoded answers, of the same class.

        :raises Refusal: the kernel refused.
        """
        message["cmd"] = command
        message["version"] = _VERSION
        message["attrs"] = list(attributes)
        return self.request(self._number, message)


class _Control(Rtnl):
    protocol: ClassVar[int] = _NETLINK_GENERIC


@cache
def _resolve(family: str) -> tuple[int, frozenset[int]]:
    """The family's number and its commands; they stay as long as the kernel runs."""
    header = _HEADER.pack(_CTRL_CMD_GETFAMILY, _VERSION)
    with _Control() as control:
        try:
            answers = control.request(_GENL_ID_CTRL, header + attribute(_FAMILY_NAME, text(family)))
        except Refusal as error:
            if error.errno == errno.ENOENT:
                raise NotSupportedError(f"the generic netlink family {family}") from error
            raise
    (found,) = _taken(answers)
    commands = unpack(found.get(_OPS, b"")).values()
    return number_in(found[_FAMILY_ID]), frozenset(
        number_in(unpack(command)[_OP_ID]) for command in commands
    )


def _taken(answers: Iterable[bytes]) -> list[dict[int, bytes]]:
    return [unpack(answer, _HEADER.size) for answer in answers]
