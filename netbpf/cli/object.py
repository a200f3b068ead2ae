"""``netbpf object``: object files, without a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from netbpf.cli import skeleton
from netbpf.cli.command import Command, Group
from netbpf.cli.output import emit, lines, say, table

app = typer.Typer(cls=Group, add_completion=False, help="BPF object files; no kernel is asked.")

_WIDTH = 28


@app.callback()
def noun() -> None:
    """BPF object files; no kernel is asked."""


app.command(
    "skeleton", cls=Command, epilog="Example: netbpf object skeleton filter.o -o filter.py"
)(skeleton.object_skeleton)


@app.command(cls=Command, epilog="Example: netbpf object show filter.o --json")
def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The object file.")],
) -> None:
    """Show what is in an object file: programs, maps, globals, relocations."""
    from netbpf.elf.object import open_object
    from netbpf.elf.show import document

    found = document(open_object(file))
    emit({"object": found}, lambda: _render(found))


def _render(found: dict[str, Any]) -> None:
    say(
        f"{found['file']}: {found['byteorder']}-endian, license {found['license'] or 'none'}"
        + (f", kernel version {found['version']}" if found["version"] else "")
    )
    btf = found["btf"]
    if btf is None:
        say("no BTF")
    else:
        say(
            f"BTF: {btf['size']} bytes, {btf['types']} types; {btf['functions']} functions, "
            f"{btf['lines']} lines, {btf['core_relocations']} CO-RE relocations"
        )
    if found["arena"] is not None:
        say(f"arena {found['arena']['map']}: {found['arena']['size']} bytes of variables")
    if found["jump_tables"]:
        say(f"jump tables: {len(found['jump_tables'])} entries")
    _section(
        "Programs",
        ["NAME", "SECTION", "TYPE", "ATTACH", "INSNS", "NOTES"],
        [
            [
                *(p[key] for key in ("name", "section", "type", "attach_type", "instructions")),
                lines(_program_notes(p)),
            ]
            for p in found["programs"]
        ],
    )
    _section(
        "Functions",
        ["NAME", "SECTION", "BINDING", "INSNS", "CALLS"],
        [
            [
                f["name"],
                f["section"],
                "hidden" if f["hidden"] else f["binding"],
                f["instructions"],
                lines(f["calls"]),
            ]
            for f in found["functions"]
        ],
    )
    _section(
        "Maps",
        ["NAME", "TYPE", "KEY", "VALUE", "ENTRIES", "NOTES"],
        [
            [
                m["name"],
                m["type"],
                _sized(m, "key"),
                _sized(m, "value"),
                m["max_entries"],
                lines(_map_notes(m)),
            ]
            for m in found["maps"]
        ],
    )
    _section(
        "Globals",
        ["NAME", "SECTION", "TYPE", "BYTES", "VALUE"],
        [
            [g["name"], g["section"], g["type"], g["size"], _short(g["value"])]
            for g in found["globals"]
        ],
    )
    _section(
        "Externs",
        ["NAME", "SECTION", "TYPE", "NOTES"],
        [
            [e["name"], e["section"], e["type"] or "untyped", "weak" if e["weak"] else None]
            for e in found["externs"]
        ],
    )
    _section("Relocations", ["FUNCTION", "KIND", "TARGET", "INSNS"], _relocations(found))
    _section(
        "CO-RE relocations",
        ["FUNCTION", "INSN", "ASKS"],
        [[r["function"], r["instruction"], r["asks"]] for r in found["core_relocations"]],
    )


def _section(title: str, columns: Sequence[str], rows: list[list[Any]]) -> None:
    if not rows:
        return
    # A column that says nothing of any row is left out.
    kept = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
    say("")
    say(title)
    table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _program_notes(program: dict[str, Any]) -> list[str]:
    notes = list(program["flags"])
    if not program["autoload"]:
        notes.append("no autoload")
    if program["binding"] == "weak":
        notes.append("weak")
    if program["exception_callback"]:
        notes.append(f"throws to {program['exception_callback']}")
    return notes + [f"calls {name}" for name in program["calls"]]


def _sized(spec: dict[str, Any], part: str) -> str | None:
    size, name = spec[f"{part}_size"], spec[f"{part}_type"]
    # That of a struct of programs stands among the notes.
    if name is None or spec["struct_ops"] is not None:
        return str(size) if size else None
    return f"{size} {name}"


def _map_notes(spec: dict[str, Any]) -> list[str]:
    notes = list(spec["flags"])
    if spec["pinned_by_name"]:
        notes.append("pinned by name")
    if not spec["autocreate"]:
        notes.append("no autocreate")
    if spec["map_extra"]:
        notes.append(f"map_extra {spec['map_extra']:#x}")
    if spec["numa_node"]:
        notes.append(f"NUMA node {spec['numa_node']}")
    inner = spec["inner"]
    if inner is not None:
        sizes = f"key {inner['key_size']}, value {inner['value_size']}"
        notes.append(f"of {inner['type']}, {sizes}, {inner['max_entries']} entries")
    notes += [f"[{slot['index']}] = {slot['target']}" for slot in spec["slots"]]
    ops = spec["struct_ops"]
    if ops is not None:
        notes.append(f"struct {ops['type']}")
        notes += [f".{p['member']} = {p['program']}" for p in ops["programs"]]
    return notes


def _short(value: Any) -> str | None:
    if value is None:
        return None
    text = _text(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _text(value: Any) -> str:
    if isinstance(value, str):
        import json

        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "{" + ", ".join(map(_text, value)) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f".{name} = {_text(item)}" for name, item in value.items()) + "}"
    return str(value)


def _relocations(found: dict[str, Any]) -> list[list[Any]]:
    # One line for each thing that a function refers to, however often it does.
    places: dict[tuple[str, str, str], list[int]] = {}
    for r in found["relocations"]:
        target = r["variable"] or r["target"] + (f"+{r['offset']}" if r["offset"] else "")
        places.setdefault((r["function"], r["kind"], target), []).append(r["instruction"])
    return [[*key, _numbers(numbers)] for key, numbers in places.items()]


def _numbers(numbers: list[int]) -> str:
    text = " ".join(map(str, numbers[:6]))
    return f"{text} and {len(numbers) - 6} more" if len(numbers) > 6 else text
