"""PROG: from what was typed to a loaded program."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from netbpf.cli.lint import tell
from netbpf.errors import AmbiguousError, NetbpfError, NotFoundError

if TYPE_CHECKING:
    from netbpf.bpf.hook import Hook
    from netbpf.bpf.prog import Program
    from netbpf.elf import ObjectSpec, ProgramSpec
    from netbpf.lint.insns import Code
    from netbpf.netns.hooks import NetnsHook

_LOADED = ("id:", "name:", "tag:", "pin:", "link:")


@contextmanager
def program(
    text: str, variables: Sequence[str], hook: Hook | NetnsHook | None, *, strict: bool = False
) -> Iterator[Program]:
    """The program that ``text`` names, loaded for ``hook``; closed with the block.

    Without a hook any type fits that a packet can be given to.

    :param variables: ``VAR=VALUE``, set before the program is loaded.
    :param strict: refuse what does not work at the hook, instead of noting it.
    :raises NetbpfError: it is of a type that no such hook takes.
    """
    source = _object_file(text)
    if source is None:
        with _loaded(text, variables) as found:
            info = found.info()
            if hook is not None:
                _check_type(info.name, info.type, info.type_name, hook)
                tell(info.name, found, hook, strict)
            yield found
        return
    from netbpf import loader
    from netbpf.loader import code

    with loader.open(source[0]) as obj:
        spec = _fitting(obj.spec, source[1], hook)
        for variable in variables:
            obj.set(*assignment(variable))
        looked = None
        if hook is not None:
            _check_type(spec.name, spec.type, spec.type_name, hook)
            looked = code.of(obj, spec)
            if not looked.opaque:
                tell(spec.name, looked, hook, strict)
        obj.load(only=[spec.name])
        loaded = obj.programs[spec.name]
        if hook is not None and looked is not None and looked.opaque:
            # What depends on the kernel is decided now.
            tell(spec.name, loaded, hook, strict)
        yield loaded


def check(
    text: str, variables: Sequence[str], hook: Hook | NetnsHook, *, strict: bool = False
) -> tuple[int | None, str]:
    """Id and name of the program that ``text`` names, with nothing loaded: for a dry run.

    One of a file has no id.
    """
    with examined(text, variables, hook) as (number, name, found):
        tell(name, found, hook, strict)
    return number, name


@contextmanager
def examined(
    text: str, variables: Sequence[str], hook: Hook | NetnsHook
) -> Iterator[tuple[int | None, str, Program | Code]]:
    """The program that ``text`` names, to be looked into: its id, its name, and itself.

    One of a file has no id: nothing is loaded.

    :raises NetbpfError: it is of a type that no such hook takes.
    """
    source = _object_file(text)
    if source is None:
        with _loaded(text, variables) as found:
            info = found.info()
            _check_type(info.name, info.type, info.type_name, hook)
            yield info.id, info.name, found
        return
    from netbpf import loader
    from netbpf.loader import code

    with loader.open(source[0]) as obj:
        for variable in variables:
            obj.set(*assignment(variable))
        obj.check()
        spec = _fitting(obj.spec, source[1], hook)
        _check_type(spec.name, spec.type, spec.type_name, hook)
        yield None, spec.name, code.of(obj, spec)


def _check_type(name: str, number: int, word: str, hook: Hook | NetnsHook) -> None:
    from netbpf.bpf import uapi

    if number != hook.prog_type:
        raise NetbpfError(
            f"{name} is of type {word}, {hook.words} takes {uapi.PROG_TYPE_NAMES[hook.prog_type]}",
            hint=f'its section is called SEC("{hook.section}")',
            code="wrong_type",
        )


def _object_file(text: str) -> tuple[str, str | None] | None:
    """The path and the program's name, where ``text`` is an object file; None where it is not."""
    from netbpf import progs

    if text.startswith("builtin:"):
        return progs.path(text.removeprefix("builtin:")), None
    if text.startswith(_LOADED) and not os.path.exists(text):
        return None
    if text.isdecimal() and not os.path.exists(text):
        return None
    path, colon, name = text.rpartition(":")
    if colon and not os.path.exists(text):
        return path, name or None
    from netbpf.bpf.bpffs import is_bpffs

    if os.path.exists(text):
        return None if is_bpffs(text) else (text, None)
    if is_bpffs(os.path.dirname(text) or "."):
        # A pin that is not there, or not any more.
        return None
    hint = f"builtin:{text} comes with netbpf" if text in progs.names() else None
    raise NotFoundError("object file", text, hint=hint)


def _fitting(spec: ObjectSpec, name: str | None, hook: Hook | NetnsHook | None) -> ProgramSpec:
    """The program of that name, or the only one that fits; one made for this hook fits best."""
    if name is not None:
        return spec.program(name)
    if hook is None:
        from netbpf.bpf.test_run import PACKET_TYPES

        return spec.only_program(sorted(PACKET_TYPES))
    made_for_it = [
        each
        for each in spec.programs
        if each.type == hook.prog_type and each.expected_attach_type == hook.attach_type
    ]
    if len(made_for_it) == 1:
        return made_for_it[0]
    return spec.only_program([hook.prog_type])


def _loaded(text: str, variables: Sequence[str]) -> Program:
    if variables:
        raise ValueError(f"--set is for what is loaded from a file; {text} is loaded already")
    return loaded(text)


def loaded(text: str) -> Program:
    """The program that is in the kernel already and that ``text`` names; the caller closes it."""
    from netbpf.bpf import prog
    from netbpf.bpf.prog import Program
    from netbpf.bpf.ref import Ref

    ref = Ref.parse(text)
    if ref.kind == "pin":
        return Program.from_pin(ref.value)
    infos = prog.loaded(ref)
    if len(infos) > 1:
        raise AmbiguousError("program", str(ref), [f"id:{info.id} {info.name}" for info in infos])
    return Program.from_id(infos[0].id)


def assignment(
    text: str, option: str = "--set", form: tuple[str, str] = ("VAR", "VALUE")
) -> tuple[str, str]:
    """The two sides of what was given to an option that takes ``VAR=VALUE``.

    :raises ValueError: it is written otherwise.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{option} {text}: write {'='.join(form)}")
    return name, value
