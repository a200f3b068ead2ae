"""The maps of libbpf's usdt.bpf.h: where programs at probes find arguments and cookie."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Sequence

from netbpf.bpf import btf_object, uapi
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.btf.errors import BtfFormatError
from netbpf.closing import Closing
from netbpf.elf.usdt_args import Argument
from netbpf.errors import BpfError, ConflictError, NetbpfError
from netbpf.plumbing import usdt_specs

# __bpf_usdt_specs and __bpf_usdt_ip_to_spec_id, as much of their names as the kernel keeps.
_SPECS = "__bpf_usdt_spec"
_PLACES = "__bpf_usdt_ip_t"
_NUMBER = struct.Struct("=I")
_ADDRESS = struct.Struct("=Q")
# From looking what is free until it is taken.
_TAKING = threading.Lock()


class Maps(Closing):
    """The maps that a program reads, and what one attachment has put into them.

    Closing takes that out again, unless it was left. Needs CAP_SYS_ADMIN: maps are opened by id.
    """

    def __init__(self, program: Program) -> None:
        self._open: dict[str, Map] = {}
        self._taken: list[int] = []
        self._placed: list[int] = []
        try:
            for number in program.info().map_ids:
                found = Map.from_id(number)
                name = found.info().name
                if name in (_SPECS, _PLACES):
                    self._open[name] = found
                else:
                    found.close()
        except BaseException:
            self.close()
            raise

    @property
    def known(self) -> bool:
        """Whether the program reads specs at all."""
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
            btf = btf_object.read(info.btf_id)
            written = [
                usdt_specs.encode(btf, info.btf_value_type_id, each, cookie) for each in places
            ]
            if info.key_size != _NUMBER.size or info.value_size != len(written[0]):
                raise ValueError("its keys or values are of another size")
        except (BtfFormatError, ValueError) as error:
            raise NetbpfError(
                f"probe {probe}: map __bpf_usdt_specs is not that of libbpf's usdt.bpf.h: {error}",
                code="not_attachable",
            ) from error
        return written
