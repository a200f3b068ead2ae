"""The running kernel's types, and those of a file that stands for another kernel's.

They are kept for as long as the process lives: a second object needs no second look.
"""

from __future__ import annotations

import os
import struct

from netbpf import libc
from netbpf.btf import index
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.core import Candidate
from netbpf.btf.errors import BtfFormatError
from netbpf.btf.index import Index, IndexedBtf
from netbpf.errors import NotSupportedError, ObjectFileError
from netbpf.loader import index_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYS_BTF = "/sys/kernel/btf"
NOTES = "/sys/kernel/notes"
# Where distributions put a kernel that does not show its types, as libbpf looks for it.
ELSEWHERE = (
    "/boot/vmlinux-{0}",
    "/lib/modules/{0}/vmlinux-{0}",
    "/lib/modules/{0}/build/vmlinux",
    "/usr/lib/modules/{0}/kernel/vmlinux",
    "/usr/lib/debug/boot/vmlinux-{0}",
    "/usr/lib/debug/boot/vmlinux-{0}.debug",
    "/usr/lib/debug/lib/modules/{0}/vmlinux",
)
_NT_GNU_BUILD_ID = 3
_FILES_KEPT = 4
_LONG = ("long unsigned int", "unsigned long", "long int", "long")

_running: dict[tuple[bytes, int], KernelTypes] = {}
_files: dict[tuple[str, int, int, int, int], KernelTypes] = {}


class KernelTypes:
    """A kernel's types: ``main`` those of vmlinux, and behind them those of its modules.

    ``name`` says in a message whose types they are. The types of modules are looked at only where
    the kernel itself has none of a name.
    """

    def __init__(self, main: IndexedBtf, name: str, modules: str | None = None) -> None:
        self.main = main
        self.name = name
        self._folder = modules
        self._modules: dict[str, tuple[tuple[int, int, int], IndexedBtf]] = {}
        self._found: dict[tuple[str, int], list[Candidate]] = {}

    @property
    def btf(self) -> Btf:
        """The types of vmlinux."""
        return self.main.btf

    def candidates(self, name: str, kind: int) -> list[Candidate]:
        """The types of ``kind`` whose essential name is ``name``: of vmlinux, else of modules."""
        found = self._found.get((name, kind))
        if found is None:
            main = self.main.candidates(name, kind)
            found = [Candidate(self.btf, type_id) for type_id in main]
            if found:
                self._found[name, kind] = found
            else:
                found = [
                    Candidate(module.btf, type_id)
                    for module in self.modules().values()
                    for type_id in module.candidates(name, kind)
                ]
        return list(found)

    def modules(self) -> Mapping[str, IndexedBtf]:
        """The types that the modules loaded now add to the kernel's, by module.

        Since Linux 5.11 (kernel/bpf/btf.c: btf_module_notify).
        """
        if self._folder is None:
            return {}
        known, self._modules = self._modules, {}
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            names = []
        for name in names:
            if name == "vmlinux":
                continue
            try:
                path = os.path.join(self._folder, name)
                state = os.stat(path)
                # A module that went and came again has another file.
                identity = (state.st_ino, state.st_mtime_ns, state.st_size)
                if name in known and known[name][0] == identity:
                    self._modules[name] = known[name]
                    continue
                with open(path, "rb", buffering=0) as file:
                    added = index.parse(file.read(), self.btf)
            except (OSError, BtfFormatError):
                # It goes at this moment, or was built for another kernel: it adds nothing.
                continue
            self._modules[name] = identity, added
        return {name: added for name, (_, added) in self._modules.items()}


def running() -> KernelTypes:
    """The types of the running kernel.

    :raises NotSupportedError: it does not tell them. :raises ObjectFileError: they are malformed.

    Since Linux 5.4 (kernel/bpf/sysfs_btf.c).
    """
    path = os.path.join(SYS_BTF, "vmlinux")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return _elsewhere(error)
    try:
        size = os.fstat(fd).st_size
        identity = build_id(), size
        if identity not in _running:
            try:
                main = _indexed(_content(fd, size), identity[0])
            except BtfFormatError as error:
                raise ObjectFileError(path, str(error)) from error
            _running.clear()
            _running[identity] = KernelTypes(main, "this kernel", SYS_BTF)
        return _running[identity]
    finally:
        os.close(fd)


def read(path: str | os.PathLike[str]) -> KernelTypes:
    """The types in a file: raw BTF, or an ELF file with a section of it.

    :raises NotFoundError: there is no such file. :raises ObjectFileError: it holds no types.
    """
    from netbpf.elf import types_file

    name = os.fspath(path)
    try:
        state = os.stat(name)
        identity = (name, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if identity in _files:
            return _files[identity]
    except (OSError, ValueError):
        identity = None
    data, pointer = types_file.read(name)
    try:
        main = index.parse(data)
        main.btf.pointer = _pointer(main) or pointer or struct.calcsize("P")
    except BtfFormatError as error:
        raise ObjectFileError(name, str(error)) from error
    found = KernelTypes(main, name)
    if identity is not None:
        while len(_files) >= _FILES_KEPT:
            _files.pop(next(iter(_files)))
        _files[identity] = found
    return found


def build_id() -> bytes:
    """The running kernel's build id, empty where it tells none.

    Since Linux 2.6.23 (kernel/ksysfs.c: notes_read).
    """
    try:
        with open(NOTES, "rb", buffering=0) as file:
            notes = file.read()
    except OSError:
        return b""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("=3I", notes, at)
        content = at + 12 + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[at + 12 : at + 16] == b"GNU\0":
            return notes[content : content + size]
        at = content + (size + 3 & ~3)
    return b""


def _content(fd: int, size: int) -> bytes | memoryview:
    try:
        # Since Linux 6.16 (kernel/bpf/sysfs_btf.c: btf_sysfs_vmlinux_mmap).
        return libc.map_forever(fd, size)
    except OSError:
        with open(fd, "rb", buffering=0, closefd=False) as file:
            return file.read()


def _indexed(data: bytes | memoryview, build: bytes) -> IndexedBtf:
    identity = build + struct.pack("=Q", len(data))

    def keep(made: Index) -> None:
        if build:
            index_cache.write(build.hex(), index.pack(made, identity))

    stored = index_cache.read(build.hex()) if build else None
    if stored is not None:
        try:
            found = index.unpack(stored, identity)
            return IndexedBtf(Btf.parse(data, None, found.offsets), found, keep)
        except ValueError:
            # Another kernel's, of another version of netbpf, or damaged.
            pass
    made = index.parse(data)
    keep(made.index)
    return IndexedBtf(made.btf, made.index, keep)


def _elsewhere(error: OSError) -> KernelTypes:
    release = os.uname().release
    for place in ELSEWHERE:
        path = place.format(release)
        if os.access(path, os.R_OK):
            return read(path)
    if isinstance(error, PermissionError):
        raise ObjectFileError(error.filename, "may not be read") from error
    raise NotSupportedError(
        "looking up the kernel's own types",
        since="5.4",
        config="CONFIG_DEBUG_INFO_BTF",
        hint="name a file with this kernel's BTF (--btf FILE)",
    ) from error


def _pointer(main: IndexedBtf) -> int:
    # A long is as large as a pointer on every Linux.
    for name in _LONG:
        type_id = main.find(name, t.KIND_INT)
        found = main.btf.type(type_id) if type_id is not None else None
        if isinstance(found, t.Int) and found.size in (4, 8):
            return found.size
    return 0
