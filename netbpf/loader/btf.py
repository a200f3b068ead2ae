"""Loading an object's BTF into the kernel."""

from __future__ import annotations

import errno

from netbpf.bpf import btf_object
from netbpf.bpf.fd import FD
from netbpf.btf.blob import Btf
from netbpf.errors import BpfError
from netbpf.loader import log


def load(btf: Btf, *, needed: bool = False) -> FD | None:
    """The descriptor of ``btf`` in the kernel; None where the kernel refuses it.

    What wants it (source lines, types of maps) goes without then: no program is refused for it.
    A kernel that does not know a kind of type gets it in terms of older ones.

    :param needed: the object is nothing without: as libbpf has it, one with structs of programs.
    :raises BpfError: the kernel refused what is needed, with its words.
    """
    if b"\0.ksyms\0" in btf.strings[1]:
        from netbpf.loader import sanitise

        btf = sanitise.placed(btf)
    try:
        return btf_object.load(btf.data)
    except BpfError as error:
        if error.errno == errno.EPERM and not needed:
            return None  # the maps or the program will be refused, and say so
        if error.errno == errno.EPERM:
            raise
    from netbpf import features
    from netbpf.loader import sanitise

    kinds = [name for name in features.names() if name.startswith("btf_")]
    lacking = [name for name in kinds if features.probe(name) is False]
    if lacking:
        log.info("the kernel lacks %s: the BTF goes without", ", ".join(lacking))
        btf = sanitise.sanitised(btf, lacking)
    try:
        return btf_object.load(btf.data)
    except BpfError as error:
        if needed:
            raise
        log.warning("the object goes without its BTF: %s", error)
    return None
