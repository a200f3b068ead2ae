"""Documents as JSON, without the module of that name: a sixth of a quick command's time.

With that module `tcx show --json` takes as much longer as it may not (bench/show.py: 1.05 times
`bpftool net show`, 0.89 without).
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dumps(value: Any) -> str:
    """What ``json.dumps`` makes of it; bytes become hexadecimal digits.

    Plain words and numbers are written here. Where there are others, and where ``json`` has been
    imported already, it is asked.
    """
    if "json" in sys.modules:
        return _asked(value)
    if value is None:
        return "null"
    kind = type(value)
    if kind is str and value.isascii() and value.isprintable() and not _QUOTED.intersection(value):
        return f'"{value}"'
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is list:
        return f"[{', '.join(map(dumps, value))}]"
    if kind is dict and all(type(key) is str for key in value):
        return f"{{{', '.join(f'{dumps(key)}: {dumps(each)}' for key, each in value.items())}}}"
    return _asked(value)


_QUOTED = frozenset('"\\')


def _asked(value: Any) -> str:
    import json

    return json.dumps(value, default=lambda data: bytes(data).hex())
