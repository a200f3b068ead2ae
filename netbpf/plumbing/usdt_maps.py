"""The maps of libbpf's usdt.bpf.h: where programs at probes find arguments and cookie."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Sequence
from typing import Self

from netbpf.bpf import btf_object, uapi
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError
from netbpf.closing import Closing
from netbpf.elf.usdt_args import Argument
from netbpf.errors import BpfError, ConflictError, NetbpfError
from netbpf.loader.object import Object
from netbpf.plumbing import usdt_specs

# __bpf_usdt_specs and __bpf_usdt_ip_to_spec_id, as much of their names as the kernel keeps.
_NAME = 15
_SPECS = "__bpf_usdt_specs"[:_NAME]
_PLACES = "__bpf_usdt_ip_to_spec_id"[:_NAME]
_NUMBER = struct.Struct("=I")
_ADDRESS = struct.Struct("=Q")
# From looking what is free until it is taken.
_TAKING = threading.Lock()


class Maps(Closing):
    """The maps that a program reads, and what one attachment has put into them.

    Closing takes that out again, unless it was left.
    """

    def __init__(self) -> None:
        self._open: dict[str, Map] = {}
        self._types: tuple[Btf, int] | None = None
        self._taken: list[int] = []
        self._placed: list[int] = []

    @classmethod
    def of(cls, program: Program) -> Self:
        """Those of a loaded program, by id. Needs CAP_SYS_ADMIN."""
        made = cls()
        try:
            for number in program.info().map_ids:
                with Map.from_id(number) as found:
                    made._keep(found.info().name, found)
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    def of_object(cls, obj: Object) -> Self:
        """Those of an object that is loaded."""
        made = cls()
        for name, found in obj.maps.items():
            made._keep(name[:_NAME], found)
        if made.known and obj.spec.btf is not None:
            made._types = obj.spec.btf, obj.spec.map("__bpf_usdt_specs").value_type_id
        return made

    def _keep(self, name: str, found: Map) -> None:
        if name in (_SPECS, _PLACES):
            self._open[name] = Map.from_fd(found.fileno())

    @property
    def known(self) -> bool:
        """Whether there are specs at all."""
        return _SPECS in self._open

    def take(self, places: Sequence[Sequence[Argument]], cookie: int, probe: str) -> list[int]:
        """Write specs for places with these arguments, and their numbers; like places share one.

        :raises NetbpfError: there is no room, or the maps are not libbpf's.
        """
        specs = self._open[_SPECS]
        written = self._encoded(specs, places, cookie, probe)
        kinds = list(dict.fromkeys(written))
        with _TAKING:
            room = specs.info().max_entries
            numbers = usdt_specs.free(
                (specs.lookup(_NUMBER.pack(number)) for number in range(room)), len(kinds)
            )
            if len(numbers) < len(kinds):
                raise NetbpfError(
                    f"probe {probe}: the program has room for {room} specs, and {len(numbers)} of "
                    f"{len(kinds)} that are wanted are free",
                    hint="load it with a larger map __bpf_usdt_specs (--map-size)",
                    code="no_space",
                )
            for number, kind in zip(numbers, kinds, strict=True):
                specs.update(_NUMBER.pack(number), kind)
                self._taken.append(number)
        by_kind = dict(zip(kinds, numbers, strict=True))
        return [by_kind[each] for each in written]

    def place(self, addresses: Sequence[int], numbers: Sequence[int], probe: str) -> None:
        """Tell which spec is that of the place at each address, where there are no cookies.

        :raises ConflictError: another program is attached there.
        """
        if _PLACES not in self._open:
            return
        for address, number in zip(addresses, numbers, strict=True):
            key = _ADDRESS.pack(address)
            try:
                self._open[_PLACES].update(key, _NUMBER.pack(number), uapi.BPF_NOEXIST)
            except BpfError as error:
                if error.errno != errno.EEXIST:
                    raise
                raise ConflictError(
                    f"probe {probe}: a program of the same object is at {address:#x} already, and "
                    "this kernel tells programs no cookie to know them by"
                ) from error
            self._placed.append(address)

    def leave(self) -> None:
        """Keep what was put into the maps: somebody else keeps the program attached."""
        self._taken.clear()
        self._placed.clear()

    def close(self) -> None:
        """Take out what was put in, and let go of the maps; a second call does nothing."""
        try:
            while self._placed:
                self._open[_PLACES].delete(_ADDRESS.pack(self._placed.pop()))
            while self._taken:
                specs = self._open[_SPECS]
                specs.update(_NUMBER.pack(self._taken.pop()), bytes(specs.info().value_size))
        finally:
            while self._open:
                self._open.popitem()[1].close()

    def _encoded(
        self, specs: Map, places: Sequence[Sequence[Argument]], cookie: int, probe: str
    ) -> list[bytes]:
        info = specs.info()
        try:
            # A map that was made for another object may lay them out otherwise than this one.
            btf, value = self._types or (btf_object.read(info.btf_id), info.btf_value_type_id)
            written = [usdt_specs.encode(btf, value, each, cookie) for each in places]
            if info.key_size != _NUMBER.size or info.value_size != len(written[0]):
                raise ValueError("its keys or values are of another size")
        except (BtfFormatError, TypeError, ValueError) as error:
            raise NetbpfError(
                f"probe {probe}: map __bpf_usdt_specs is not that of libbpf's usdt.bpf.h: {error}",
                code="not_attachable",
            ) from error
        return written
