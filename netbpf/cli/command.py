"""Commands and groups with what stands everywhere: global options, --netns, lazy nouns."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from netbpf.cli.interrupts import uninterrupted
from netbpf.cli.settings import settings

_PANEL = "Everywhere"


def _store(ctx: typer.Context, param: Any, value: Any) -> Any:
    # An option may stand before the noun and after the verb: whichever says something counts. An
    # empty namespace is said too: a script's variable that is not set must not mean "here".
    if value or value == "":
        setattr(settings, param.name, value)
    return value


def _option(*names: str, help: str, **more: Any) -> TyperOption:
    return TyperOption(
        param_decls=list(names),
        callback=_store,
        expose_value=False,
        is_eager=True,
        help=help,
        rich_help_panel=_PANEL,
        **more,
    )


def netns_names(incomplete: str) -> list[str]:
    """The names of namespaces that begin so, for completion."""
    from netbpf import netns

    return [name for name in netns.list_names() if name.startswith(incomplete)]


def global_options() -> list[TyperOption]:
    """The options that every command takes, made anew for each."""
    return [
        _option("json", "-j", "--json", is_flag=True, help="One JSON document on stdout."),
        _option(
            "netns",
            "-n",
            "--netns",
            type=str,
            metavar="NS",
            autocompletion=netns_names,
            help="Act in network namespace NS: a name, a path, or pid:N.",
        ),
        _option("verbose", "-v", "--verbose", is_flag=True, help="More words on stderr."),
        _option("debug", "--debug", is_flag=True, help="A traceback when something fails."),
    ]


class Command(TyperCommand):
    """A command that takes the global options and runs in the namespace that they name."""

    changes = False
    hook_words: str | None = None
    may_be_empty = frozenset({"alias", "peer_alias"})
    """An empty alias takes the device's away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for param in self.params:
            if self.hook_words and param.name == "hook":
                param.metavar = self.hook_words
        if self.changes:
            self.params.append(
                _option(
                    "dry_run",
                    "--dry-run",
                    is_flag=True,
                    help="Say what would be done, change nothing.",
                )
            )
        self.params.extend(global_options())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the words apart; an empty one is a script's variable that is not set."""
        rest = super().parse_args(ctx, args)
        for param in self.params:
            if ctx.params.get(param.name) == "" and param.name not in self.may_be_empty:
                word = param.metavar if param.param_type_name == "argument" else param.opts[0]
                ctx.fail(f"{word} is empty")
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command, in another namespace when one is named."""
        if settings.netns is None:
            return super().invoke(ctx)
        from netbpf import netns

        with netns.NetNS.parse(settings.netns) as place:
            if not netns.may_return():
                # A user namespace that does not own where we are; a command has no need to return.
                netns.enter_for_good(place)
                return super().invoke(ctx)
            with netns.entered(place):
                return super().invoke(ctx)


class ChangingCommand(Command):
    """A command that changes something: it takes --dry-run, and is not interrupted half-way."""

    changes = True

    def invoke(self, ctx: Any) -> Any:
        """Run the command to its end, which is moments away: Ctrl-C and SIGTERM come too late."""
        if settings.dry_run:
            return super().invoke(ctx)
        with uninterrupted():
            return super().invoke(ctx)


class Group(TyperGroup):
    """A noun: with nothing after it, it shows its verbs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the words apart; a verb has to follow."""
        if not args and not ctx.resilient_parsing:
            if settings.json:
                ctx.fail(f"a verb is missing: {', '.join(self.list_commands(ctx))}")
            # With rich, asking for the help prints it.
            print(ctx.get_help(), end="")
            ctx.exit(2)
        return super().parse_args(ctx, args)


class LazyGroup(Group):
    """The nouns, each imported when it is used; ``nouns`` maps a noun to its module.

    Those in ``verbs`` are commands by themselves: their modules hold one command and no callback.
    """

    nouns: dict[str, str]
    verbs: frozenset[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(global_options())
        # The names are enough for suggestions and listings; get_command makes the command.
        self.commands: dict[str, Any] = dict.fromkeys(self.nouns)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The noun's group, or None."""
        module = self.nouns.get(cmd_name)
        if module is None:
            return None
        if self.commands[cmd_name] is None:
            group = typer.main.get_command(importlib.import_module(module).app)
            group.name = cmd_name
            self.commands[cmd_name] = group
        return self.commands[cmd_name]
