"""The entry point: the nouns, and the one place where errors become words and exit statuses."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer
from typer._click.exceptions import ClickException, UsageError

from netbpf.cli import exit_status, logs
from netbpf.cli.command import LazyGroup
from netbpf.cli.output import Document, clean, emit
from netbpf.cli.settings import settings
from netbpf.errors import NetbpfError, VerifierError, errno_name


class Nouns(LazyGroup):
    """What netbpf can speak of."""

    nouns = {  # noqa: RUF012
        "netkit": "netbpf.cli.netkit",
        "lease": "netbpf.cli.lease",
        "tcx": "netbpf.cli.tcx",
        "netns": "netbpf.cli.netns",
        "prog": "netbpf.cli.prog",
        "link": "netbpf.cli.link",
        "map": "netbpf.cli.map",
        "btf": "netbpf.cli.btf",
        "object": "netbpf.cli.object",
        "explain": "netbpf.cli.explain",
        "watch": "netbpf.cli.watch",
    }
    verbs = frozenset({"explain", "watch"})


app = typer.Typer(
    cls=Nouns,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Plumb Linux networks with BPF: netkit devices, chains of tcx and netkit programs, "
    "namespaces.",
    epilog="Example: netbpf tcx attach eth0 ingress builtin:count --first",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"netbpf {version('netbpf')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Holds the options that stand before the noun; ``Nouns`` adds the others."""


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit status; nothing is raised.

    The process is the command's: how it takes SIGINT and SIGTERM stays as the command leaves it.
    """
    arguments = sys.argv[1:] if argv is None else argv
    settings.reset()
    _on_sigterm()
    try:
        logs.set_up()
        result = typer.main.get_command(app).main(
            args=list(arguments), prog_name="netbpf", standalone_mode=False
        )
        if result == exit_status.INTERRUPTED:
            # Typer has made a status of the KeyboardInterrupt.
            raise KeyboardInterrupt
        return result if isinstance(result, int) else exit_status.DONE
    except BrokenPipeError:
        return _unread()
    except (KeyboardInterrupt, typer.Abort) as error:
        return _report(arguments, error, "interrupted", exit_status.INTERRUPTED)
    except ClickException as error:
        words = error.format_message().removesuffix(".")
        context = error.ctx if isinstance(error, UsageError) else None
        hint = f"{context.command_path} --help" if context else None
        return _report(arguments, error, words, exit_status.USAGE, code="usage", hint=hint)
    except (NetbpfError, ValueError, TypeError, OSError) as error:
        return _report(arguments, error, _words(error), exit_status.of(error))
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        hint = "this is a mistake in netbpf: please report it with the output of --debug"
        return _report(arguments, error, words, exit_status.REFUSED, code="internal", hint=hint)


def untold(arguments: list[str], error: Exception) -> int:
    """The status of a command that has done its work and could not tell of it."""
    if isinstance(error, BrokenPipeError):
        return _unread()
    return _report(arguments, error, _words(error), exit_status.of(error))


def _unread() -> int:
    # Whoever read our output has enough; what is still buffered goes nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exit_status.REFUSED


def _words(error: Exception) -> str:
    return error.message if isinstance(error, NetbpfError) else str(error)


def _report(
    arguments: list[str],
    error: BaseException,
    words: str,
    status: int,
    *,
    code: str | None = None,
    hint: str | None = None,
) -> int:
    """Say what went wrong, in JSON or in words, and return the status."""
    settings.json = settings.json or bool({"-j", "--json"} & set(_before_dashes(arguments)))
    if settings.debug or "--debug" in _before_dashes(arguments):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, NetbpfError):
        code, hint = error.code, error.hint
    number = getattr(error, "errno", None)
    document: Document = {
        "error": {
            "code": code or _CODES.get(status, "refused"),
            "errno": errno_name(number) if isinstance(number, int) else None,
            "message": words,
            "hint": hint,
            "extack": getattr(error, "extack", None),
        }
    }
    in_json = settings.json and not settings.told
    try:
        if in_json:
            emit(document, lambda: None)
    except (NetbpfError, BrokenPipeError):
        # Standard output is lost; standard error may not be.
        in_json = False
    if not in_json:
        print(clean(f"netbpf: {words}" + (f": {hint}" if hint else "")), file=sys.stderr)
    if isinstance(error, VerifierError) and settings.verbose:
        print(clean(error.log), file=sys.stderr)
    return status


_CODES = {exit_status.USAGE: "usage", exit_status.INTERRUPTED: "interrupted"}


def _before_dashes(arguments: list[str]) -> list[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _on_sigterm() -> None:
    """Let SIGTERM end a command as Ctrl-C does, so that nothing stays half-made."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        # Not the main thread: whoever runs us here has their own ways.
        pass
