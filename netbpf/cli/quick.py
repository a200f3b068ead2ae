"""The command that machines run again and again, without the parser of the others.

Parsing with typer costs 35 ms of CPU, as much as `bpftool net show` takes for a thousand devices
(bench/show.py). What is not exactly this is left to the parser, and so is every error: to read a
second time harms nobody.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def ran(arguments: Sequence[str]) -> bool:
    """Whether this was ``netbpf tcx show [DEV] [HOOK] --json``, and has been done."""
    words = [word for word in arguments if word not in ("-j", "--json")]
    if words[:2] != ["tcx", "show"] or len(words) == len(arguments) or len(words) > 4:
        return False
    if any(word.startswith("-") for word in words):
        return False
    from netbpf.cli.chain_view import show_tcx
    from netbpf.cli.settings import settings

    device, hook = [*words[2:], None, None][:2]
    settings.json = True
    try:
        show_tcx(device, hook)
    except Exception:
        if settings.told:
            # It is printed already, and must not be twice.
            raise
        # Told by the parser's way, in its words and with its status.
        settings.reset()
        return False
    return True
