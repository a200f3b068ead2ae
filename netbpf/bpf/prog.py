"""Programs: loading one, finding one, asking about it, running it."""

from __future__ import annotations

import ctypes
import errno

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.kobject import KernelObject, refused
from netbpf.errors import BpfError, NotFoundError, VerifierError
from netbpf.records import record

# Not from typing: to import it costs a quick command a tenth of its time (bench/show.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from netbpf.bpf.ref import Ref
    from netbpf.bpf.test_lookup import Lookup, LookupResult
    from netbpf.bpf.test_run import Context, RunResult

_LOG_FIRST = 1 << 18
# The kernel takes up to UINT_MAX >> 2 (kernel/bpf/log.c); nobody reads a log larger than this.
_LOG_LAST = 1 << 26


@record(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel tells of a program.

    ``name`` holds at most 15 characters, ``tag`` is hex, times are in nanoseconds (``load_time``
    since boot), ``type`` is the kernel's number and ``type_name`` its word.
    """

    id: int
    type: int
    name: str
    tag: str
    load_time: int
    map_ids: tuple[int, ...]
    btf_id: int
    run_count: int
    run_time: int

    @property
    def type_name(self) -> str:
        """The program type in the kernel's word, ``sched_cls``."""
        return uapi.PROG_TYPE_NAMES.get(self.type, str(self.type))


class Program(KernelObject):
    """A loaded program."""

    kind = "program"
    _next_id_cmd = uapi.BPF_PROG_GET_NEXT_ID
    _fd_by_id_cmd = uapi.BPF_PROG_GET_FD_BY_ID

    @property
    def id(self) -> int:
        """The program's id."""
        return self.info().id

    def info(self) -> ProgramInfo:
        """Ask the kernel about the program.

        Since Linux 4.13 (kernel/bpf/syscall.c: bpf_prog_get_info_by_fd).
        """
        raw = uapi.ProgInfo()
        try:
            syscall.obj_get_info(self.fileno(), raw)
            map_ids: tuple[int, ...] = ()
            if raw.nr_map_ids:
                ids = (ctypes.c_uint32 * raw.nr_map_ids)()
                again = uapi.ProgInfo(nr_map_ids=len(ids), map_ids=ctypes.addressof(ids))
                syscall.obj_get_info(self.fileno(), again)
                map_ids = tuple(ids[: again.nr_map_ids])
        except OSError as error:
            raise refused("ask about a program", error) from error
        return ProgramInfo(
            id=raw.id,
            type=raw.type,
            name=bytes(raw.name).split(b"\0")[0].decode(errors="replace"),
            tag=bytes(raw.tag).hex(),
            load_time=raw.load_time,
            map_ids=map_ids,
            btf_id=raw.btf_id,
            run_count=raw.run_cnt,
            run_time=raw.run_time_ns,
        )

    def test_run(
        self, data: bytes, *, context: Context | None = None, repeat: int = 1
    ) -> RunResult:
        """Run the program over ``data``, a whole Ethernet frame, without sending anything.

        What it does to maps is done. With ``context`` the run begins with it, and the result tells
        what became of it; it takes an SkbContext, for xdp programs an XdpContext.

        :param repeat: how often; each run gets the packet as the run before has left it.
        :raises BpfError: the kernel cannot run this type, or not over this packet, for which the
            code is ``unfit_packet``.
        :raises NotFoundError: the context names a device that is not in this namespace.

        Since Linux 4.12 (net/bpf/test_run.c).
        """
        from netbpf.bpf import test_run

        try:
            return test_run.run(self.fileno(), data, context, repeat)
        except OSError as error:
            info = self.info()
            raise test_run.explained(info.name, info.type, data, context, error) from error

    def test_lookup(self, lookup: Lookup, *, repeat: int = 1) -> LookupResult:
        """Ask the program, which is of type sk_lookup, which socket a packet would get.

        What it does to maps is done; a socket that it selects gets nothing.

        :raises BpfError: the kernel cannot run this program, or not for this packet.

        Since Linux 5.13 (net/bpf/test_run.c: bpf_prog_test_run_sk_lookup).
        """
        from netbpf.bpf import test_lookup

        try:
            return test_lookup.run(self.fileno(), lookup, repeat)
        except OSError as error:
            raise test_lookup.explained(self.info(), error) from error


def loaded(ref: Ref | None = None) -> list[ProgramInfo]:
    """The loaded programs by id; with ``ref`` those that it names. Needs CAP_SYS_ADMIN.

    :raises NotFoundError: ``ref`` names none.
    """
    from netbpf.bpf.ref import Ref

    match ref:
        case Ref(kind="pin"):
            with Program.from_pin(ref.value) as prog:
                return [prog.info()]
        case Ref(kind="id"):
            with Program.from_id(ref.number) as prog:
                return [prog.info()]
        case Ref(kind="link"):
            raise ValueError(f"{ref} is a link: a program is written id:N or name:NAME")
    found = []
    for number in Program.ids():
        try:
            with Program.from_id(number) as prog:
                info = prog.info()
        except NotFoundError:
            # It went while we looked around.
            continue
        # The kernel keeps the first 15 characters of a name.
        names_it = ref is None or (
            info.name == ref.value[:15] if ref.kind == "name" else info.tag == ref.value
        )
        if names_it:
            found.append(info)
    if ref is not None and not found:
        raise NotFoundError("loaded program", str(ref))
    return found


def load(
    prog_type: int,
    insns: bytes,
    *,
    license: str = "GPL",
    name: str = "",
    expected_attach_type: int = 0,
    flags: int = 0,
    btf_fd: int = 0,
    func_info: bytes = b"",
    func_info_rec_size: int = 0,
    line_info: bytes = b"",
    line_info_rec_size: int = 0,
    attach_btf_id: int = 0,
    attach_fd: int = 0,
    attach_btf_fd: int = 0,
    fd_array: Sequence[int] = (),
    kern_version: int = 0,
    log_level: int = 0,
) -> Program:
    """Load one program: first without a log, and again with one only when it was refused.

    :param insns: the instructions in native byte order, 8 bytes each.
    :param attach_fd: the program that ``attach_btf_id`` is a function of; ``attach_btf_fd``: the
        module's types that it is one of, 0 for the kernel's.
    :param fd_array: descriptors that instructions refer to by their place.
    :raises VerifierError: with the whole log; its message holds the last meaningful lines.
    :raises BpfError: refused before the verifier looked.
    """
    if not insns or len(insns) % 8:
        raise ValueError(f"{len(insns)} bytes are no whole number of instructions")
    # create_string_buffer keeps each piece alive and in place until the call is over.
    pieces = {
        "insns": ctypes.create_string_buffer(insns, len(insns)),
        "license": ctypes.create_string_buffer(license.encode()),
        "func_info": ctypes.create_string_buffer(func_info, len(func_info)),
        "line_info": ctypes.create_string_buffer(line_info, len(line_info)),
    }
    descriptors = (ctypes.c_int * len(fd_array))(*fd_array)
    attr = uapi.ProgLoadAttr(
        prog_type=prog_type,
        insn_cnt=len(insns) // 8,
        expected_attach_type=expected_attach_type,
        prog_flags=flags,
        prog_btf_fd=btf_fd,
        attach_btf_id=attach_btf_id,
        kern_version=kern_version,
    )
    attr.prog_name = syscall.object_name(name)
    attr.insns = ctypes.addressof(pieces["insns"])
    attr.license = ctypes.addressof(pieces["license"])
    if attach_fd:
        attr.attach_prog_fd = attach_fd
    elif attach_btf_fd:
        attr.attach_btf_obj_fd = attach_btf_fd
    if fd_array:
        attr.fd_array = ctypes.addressof(descriptors)
    if func_info:
        attr.func_info = ctypes.addressof(pieces["func_info"])
        attr.func_info_rec_size = func_info_rec_size
        attr.func_info_cnt = len(func_info) // func_info_rec_size
    if line_info:
        attr.line_info = ctypes.addressof(pieces["line_info"])
        attr.line_info_rec_size = line_info_rec_size
        attr.line_info_cnt = len(line_info) // line_info_rec_size
    try:
        return Program(FD(syscall.prog_load(attr)))
    except OSError as error:
        raise _load_refused(attr, name, error, log_level or 1) from error


def _load_refused(
    attr: ctypes.Structure, name: str, error: OSError, log_level: int
) -> BpfError | VerifierError:
    operation = f"load program {name}" if name else "load a program"
    number = error.errno or errno.EIO
    log = _log_of(attr, log_level)
    if log:
        from netbpf.bpf import verifier_log

        reason, hint = verifier_log.excerpt(log), verifier_log.suggestion(log)
        return VerifierError(operation, number, reason, hint=hint, log=log)
    if number == errno.EPERM:
        from netbpf.bpf import rights

        needed = rights.for_program(attr.prog_type)
        return BpfError(operation, number, "not permitted", hint=rights.hint(needed))
    if number == errno.EINVAL:
        return BpfError(
            operation, number, "the kernel knows no such program type, flag or attach type"
        )
    return BpfError(operation, number)


def _log_of(attr: ctypes.Structure, log_level: int) -> str:
    """The verifier log of a program that was refused, asked for again until it fits."""
    size = _LOG_FIRST
    while True:
        log = ctypes.create_string_buffer(size)
        attr.log_buf, attr.log_size, attr.log_level = ctypes.addressof(log), size, log_level
        try:
            # It was refused a moment ago; should it pass now, it is not what was asked for.
            FD(syscall.prog_load(attr)).close()
        except OSError as error:
            if error.errno == errno.ENOSPC and size < _LOG_LAST:
                size *= 8
                continue
        return log.value.decode(errors="replace").strip()
