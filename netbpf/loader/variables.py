"""The global variables of an object, by name and by path."""

from __future__ import annotations

from netbpf.btf import types as t
from netbpf.btf.values import Values, split
from netbpf.elf.spec import MapSpec, ObjectSpec
from netbpf.errors import NotFoundError
from netbpf.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def known(spec: ObjectSpec, maps: Iterable[MapSpec]) -> dict[str, tuple[MapSpec, int, int]]:
    """The map, the type and the offset of each variable in ``maps``; of two alike the first."""
    found: dict[str, tuple[MapSpec, int, int]] = {}
    btf = spec.btf
    for each in maps:
        if not each.section or not each.value_type_id or btf is None:
            continue
        section = btf.type(each.value_type_id)
        assert isinstance(section, t.DataSec)
        for variable in section.variables:
            inner = btf.type(variable.type_id)
            if isinstance(inner, t.Var):
                found.setdefault(inner.name, (each, inner.type_id, variable.offset))
    return found


@record(slots=True, frozen=True)
class Found:
    """Where a variable or a piece of it lies: a map, the type and the offset in it.

    A bit field has no place of its own: it is the member ``bits`` of what lies there.
    """

    map: MapSpec
    type_id: int
    offset: int
    values: Values
    bits: str = ""

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.values.size(self.type_id)

    def read(self, data: bytes) -> Any:
        """The value in the bytes that lie there."""
        value = self.values.read(data, 0, self.type_id)
        return value[self.bits] if self.bits else value

    def write(self, data: bytearray, value: Any, name: str) -> None:
        """Put ``value`` into the bytes that lie there; ``name`` is what it is called.

        :raises TypeError: a value of another kind. :raises ValueError: it does not fit.
        """
        if self.bits:
            name, value = name.removesuffix(f".{self.bits}"), {self.bits: value}
        self.values.write(data, 0, self.type_id, value, name)


def find(spec: ObjectSpec, maps: Iterable[MapSpec], path: str) -> Found:
    """Where ``variable.member[1]`` lies, and how to read such values.

    :raises NotFoundError: there is no such variable. :raises ValueError: it has no such member.
    """
    variables = known(spec, maps)
    # A variable that is static in a function is called function.variable.
    longest = max(
        (v for v in variables if "." in v and f"{path}.".startswith((f"{v}.", f"{v}["))),
        key=len,
        default="",
    )
    name, steps = split("_" + path[len(longest) :]) if longest else split(path)
    name = longest or name
    if name not in variables or spec.btf is None:
        hint = f"its variables: {', '.join(sorted(variables)) or 'none'}"
        if spec.btf is None:
            hint = "the file has no BTF, compile it with -g"
        raise NotFoundError("variable", name, where=f"in {spec.path}", hint=hint)
    values = Values(spec.btf)
    found, type_id, offset = variables[name]
    if steps and isinstance(steps[-1], str):
        inner, at = values.step(type_id, steps[:-1], name)
        if values.bit_field(inner, steps[-1]):
            return Found(found, inner, offset + at, values, steps[-1])
    inner, at = values.step(type_id, steps, name)
    return Found(found, inner, offset + at, values)
