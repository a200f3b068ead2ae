"""The commands that machines run again and again, without the parser of the others.

Parsing with typer costs 35 ms of CPU, as much as `bpftool net show` takes for a thousand devices
(bench/show.py). What is not exactly this is left to the parser, and so is every error: to read a
second time harms nobody.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_JSON = ("-j", "--json")


def ran(arguments: Sequence[str]) -> bool:
    """Whether this was one of them, and has been done.

    ``netbpf tcx show [DEV] [HOOK] --json`` and ``netbpf prog load FILE [--pin DIR] [--json]``.
    """
    if list(arguments[:2]) == ["prog", "load"]:
        return _loaded(arguments)
    words = [word for word in arguments if word not in _JSON]
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


def _loaded(arguments: Sequence[str]) -> bool:
    words, pins = list(arguments[2:]), []
    if "--pin" in words:
        at = words.index("--pin")
        pins = words[at + 1 : at + 2] or [""]
        del words[at : at + 2]
    files = [word for word in words if word not in _JSON]
    if len(files) != 1 or any(not word or word.startswith("-") for word in files + pins):
        return False
    pin = pins[0] if pins else None
    import os

    if os.environ.get("NETBPF_LOG_LEVEL"):
        return False
    from netbpf.cli import loading
    from netbpf.cli.interrupts import uninterrupted
    from netbpf.cli.settings import settings

    settings.json = words != files
    with uninterrupted():
        try:
            document = loading.made(files[0], pin)
        except Exception:
            # Nothing of it stayed. The parser's way refuses it once more, and says why.
            settings.reset()
            return False
        try:
            loading.tell(document, pin is not None)
        except Exception as error:
            # To load it a second time would fail for another reason.
            from netbpf.cli.main import untold

            raise SystemExit(untold(list(arguments), error)) from None
    return True
