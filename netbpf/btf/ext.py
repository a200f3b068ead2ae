"""Reading .BTF.ext: which function, source line and CO-RE access belongs to which instruction."""

from __future__ import annotations

import struct

from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError
from netbpf.btf.header import MAGIC
from netbpf.records import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FUNC_INFO_SIZE = 8
LINE_INFO_SIZE = 16
CORE_RELO_SIZE = 16


@record(slots=True)
class FuncInfo:
    """A function starts at byte ``offset`` of its section; ``type_id`` is a FUNC."""

    offset: int
    type_id: int


@record(slots=True)
class LineInfo:
    """The source of the instruction at byte ``offset``: string offsets, line and column packed."""

    offset: int
    file_name: int
    line: int
    line_column: int


@record(slots=True)
class CoreRelo:
    """A CO-RE relocation: what the instruction at byte ``offset`` wants to know of ``type_id``.

    ``number`` is its place among all relocations of the file.
    """

    offset: int
    type_id: int
    access: str
    kind: int
    number: int = 0


@record(slots=True)
class BtfExt:
    """The records of a .BTF.ext section by section name."""

    funcs: dict[str, list[FuncInfo]] = field(default_factory=dict)
    lines: dict[str, list[LineInfo]] = field(default_factory=dict)
    core: dict[str, list[CoreRelo]] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, btf: Btf) -> BtfExt:
        """Read all records; ``btf`` holds the strings.

        :raises BtfFormatError: the bytes are no .BTF.ext, or contradict themselves.
        """
        if len(data) < 24:
            raise BtfFormatError(f"{len(data)} bytes are too few for a .BTF.ext header")
        prefix = "<" if btf.byteorder == "little" else ">"
        magic, version, _flags, length = struct.unpack_from(prefix + "HBBI", data)
        if magic != MAGIC:
            raise BtfFormatError("no BTF magic number at the start of .BTF.ext")
        if version != 1:
            raise BtfFormatError(f".BTF.ext version {version} is not known")
        if not 24 <= length <= len(data):
            raise BtfFormatError(f".BTF.ext header length {length} is impossible")
        parts = struct.unpack_from(prefix + "4I", data, 8)
        if length >= 32:
            parts += struct.unpack_from(prefix + "2I", data, 24)
        result = cls()
        for section, entry in _records(data, length, parts[0:2], FUNC_INFO_SIZE, prefix, btf):
            result.funcs.setdefault(section, []).append(FuncInfo(entry[0], entry[1]))
        for section, entry in _records(data, length, parts[2:4], LINE_INFO_SIZE, prefix, btf):
            result.lines.setdefault(section, []).append(LineInfo(*entry))
        core = _records(data, length, parts[4:6], CORE_RELO_SIZE, prefix, btf)
        for number, (section, entry) in enumerate(core):
            offset, type_id, access, kind = entry
            relo = CoreRelo(offset, type_id, btf.string(access), kind, number)
            result.core.setdefault(section, []).append(relo)
        return result


def _records(
    data: bytes, header: int, part: tuple[int, ...], size: int, prefix: str, btf: Btf
) -> Iterator[tuple[str, tuple[int, ...]]]:
    # One part is: the record size, then per section its name, a count and that many records.
    if not part or not part[1]:
        return
    position = header + part[0]
    end = position + part[1]
    if end > len(data) or part[1] < 4:
        raise BtfFormatError("a part of .BTF.ext lies outside of it")
    (record_size,) = struct.unpack_from(prefix + "I", data, position)
    if record_size < size or record_size % 4:
        raise BtfFormatError(f".BTF.ext records of {record_size} bytes are not known")
    unpack = struct.Struct(f"{prefix}{size // 4}I").unpack_from
    position += 4
    while position < end:
        if position + 8 > end:
            raise BtfFormatError("a part of .BTF.ext is cut off")
        name, count = struct.unpack_from(prefix + "II", data, position)
        position += 8
        if not count or position + count * record_size > end:
            raise BtfFormatError(f"{count} records do not fit into a part of .BTF.ext")
        section = btf.string(name)
        for at in range(position, position + count * record_size, record_size):
            yield section, unpack(data, at)
        position += count * record_size
