"""``netbpf map``: the maps of this machine and what is in them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from netbpf.cli.command import Command, Group
from netbpf.cli.output import emit, say, table

app = typer.Typer(
    cls=Group, add_completion=False, help="The BPF maps of this machine, and what is in them."
)

Id = Annotated[str, typer.Argument(metavar="ID", help="id:N, its number, or pin:PATH.")]


@app.command(cls=Command, epilog="Example: netbpf map show --json | jq '.maps[].name'")
def show(
    map: Annotated[str | None, typer.Argument(metavar="ID", help="Only this map.")] = None,
) -> None:
    """Show maps."""
    from netbpf.bpf.map import Map
    from netbpf.errors import NotFoundError

    infos = []
    for number in [None] if map is not None else Map.ids():
        try:
            with open_map(map) if map is not None else Map.from_id(number or 0) as found:
                infos.append(found.info())
        except NotFoundError:
            if map is not None:
                raise
            # It went while we looked around.
    documents = [
        {
            "id": info.id,
            "name": info.name,
            "type": info.type_name,
            "key_size": info.key_size,
            "value_size": info.value_size,
            "max_entries": info.max_entries,
            "flags": info.flags,
        }
        for info in infos
    ]
    columns = ["ID", "NAME", "TYPE", "KEY", "VALUE", "MAX", "FLAGS"]
    emit({"maps": documents}, lambda: table(columns, [list(d.values()) for d in documents]))


@app.command(cls=Command, epilog="Example: netbpf map dump 12 --json | jq '.elements[0].value'")
def dump(map: Id) -> None:
    """Print a map's elements: by their BTF types where the map has them, else as hex.

    In a per-CPU map a value is a list, one for each possible CPU.
    """
    from netbpf.bpf import btf_object
    from netbpf.btf.values import Values

    elements: list[dict[str, Any]] = []
    with open_map(map) as found:
        info = found.info()
        values = Values(btf_object.read(info.btf_id)) if info.btf_id else None

        def shown(type_id: int, data: bytes) -> Any:
            return values.read(data, 0, type_id) if values and type_id else data.hex()

        for key in found.keys():  # noqa: SIM118
            raw = found.lookup(key)
            if raw is None:
                # It went between the two calls.
                continue
            value = [shown(info.btf_value_type_id, each) for each in found.split(raw)]
            elements.append(
                {
                    "key": shown(info.btf_key_type_id, key),
                    "value": value if found.per_cpu else value[0],
                }
            )
    emit({"elements": elements}, lambda: _say_elements(elements))


def _say_elements(elements: list[dict[str, Any]]) -> None:
    for each in elements:
        say(f"{each['key']}: {each['value']}")


def open_map(text: str) -> Any:
    """The map that was named by number, ``id:N`` or a pin."""
    from netbpf.bpf.map import Map
    from netbpf.bpf.ref import Ref

    ref = Ref.parse(f"id:{text}" if text.isdecimal() else text)
    match ref.kind:
        case "id":
            return Map.from_id(ref.number)
        case "pin":
            return Map.from_pin(ref.value)
    raise ValueError(f"{text} names no map: a map is id:N or pin:PATH")
