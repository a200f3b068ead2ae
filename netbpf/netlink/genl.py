"""A generic netlink socket of one family: its number found by name, its commands asked."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from functools import cache
from typing import Any, ClassVar

from pyroute2.netlink import ctrlmsg

from netbpf.errors import NotSupportedError
from netbpf.netlink.rtnl import Refusal, Rtnl

_NETLINK_GENERIC = 16
_GENL_ID_CTRL = 16
_CTRL_CMD_GETFAMILY = 3


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

    def call(self, command: int, message: Any, attrs: Iterable[tuple[str, Any]]) -> list[Any]:
        """Send ``message`` with ``attrs`` and return the decoded answers, of the same class.

        :raises Refusal: the kernel refused.
        """
        return self.request(self._number, _filled(message, command, attrs))

    def list_all(
        self, command: int, message: Any, attrs: Iterable[tuple[str, Any]] = ()
    ) -> list[Any]:
        """Send ``message`` as a dump request and return all that the kernel lists.

        :raises Refusal: the kernel refused.
        """
        return self.dump(self._number, _filled(message, command, attrs))


def _filled(message: Any, command: int, attrs: Iterable[tuple[str, Any]]) -> Any:
    message["cmd"] = command
    message["version"] = 1
    message["attrs"] = list(attrs)
    return message


@cache
def _resolve(family: str) -> tuple[int, frozenset[int]]:
    """The family's number and its commands; they stay as long as the kernel runs."""
    message = ctrlmsg()
    message["cmd"] = _CTRL_CMD_GETFAMILY
    message["version"] = 1
    message["attrs"] = [("CTRL_ATTR_FAMILY_NAME", family)]
    with _Control() as control:
        try:
            (answer,) = control.request(_GENL_ID_CTRL, message)
        except Refusal as error:
            if error.errno == errno.ENOENT:
                raise NotSupportedError(f"the generic netlink family {family}") from error
            raise
    commands = [op.get_attr("CTRL_ATTR_OP_ID") for op in answer.get_attr("CTRL_ATTR_OPS") or ()]
    return int(answer.get_attr("CTRL_ATTR_FAMILY_ID")), frozenset(commands)


class _Control(Rtnl):
    protocol: ClassVar[int] = _NETLINK_GENERIC
