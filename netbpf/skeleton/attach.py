"""Where the programs of a skeleton go: what their sections say, and at a device those for one."""

from __future__ import annotations

from collections.abc import Iterator

from netbpf.bpf import uapi
from netbpf.elf.spec import ObjectSpec, ProgramSpec
from netbpf.errors import NetbpfError
from netbpf.interrupts import held as uninterrupted
from netbpf.loader.object import Object
from netbpf.plumbing import attach as plumbing

# Programs of an entry of a devmap or cpumap, which belong to no device.
_OF_AN_ENTRY = (uapi.BPF_XDP_DEVMAP, uapi.BPF_XDP_CPUMAP)
HOOKS = ("ingress", "egress", "primary", "peer")


def attach_all(obj: Object, ifindex: int | None, hook: str | None) -> plumbing.Attachments:
    """Attach the loaded programs of ``obj``, all or none.

    What needs no place goes where its section says; then programs of ``tcx/…``, ``netkit/…`` and
    ``xdp`` go to the device, those of ``tc`` to its ``hook``, unless they are only there to be
    jumped to. The others are left alone, and told in ``open``.

    :raises NetbpfError: there is none to attach. Also raises what ``plumbing.attach`` raises.
    """
    if hook is not None and hook not in HOOKS:
        raise ValueError(f"no hook {hook}: it is {', '.join(HOOKS)}")
    made = plumbing.attach_all(obj)
    try:
        if ifindex is not None:
            for spec, own_hook in _of_device(obj.spec, hook):
                if spec.name in obj.programs:
                    with uninterrupted():
                        program = obj.programs[spec.name]
                        made.add(plumbing.attach(spec, program, ifindex=ifindex, hook=own_hook))
                    made.open.pop(spec.name, None)
        if not made:
            wants = "; ".join(f"{name}: {what}" for name, what in made.open.items())
            raise NetbpfError(
                f"no program of {obj.spec.path} says where it is to be attached",
                code="nothing_attached",
                hint=f"what would have to be said: {wants}" if wants else None,
            )
    except BaseException:
        made.close()
        raise
    return made


def _of_device(spec: ObjectSpec, hook: str | None) -> Iterator[tuple[ProgramSpec, str | None]]:
    """The programs that go to a device, each with the hook that its section leaves open."""
    jumped_to = {name for m in spec.maps if m.inner is None for _, name in m.slots}
    for program in spec.programs:
        kind = program.expected_attach_type
        if program.name in jumped_to or kind in _OF_AN_ENTRY:
            continue
        if program.type == uapi.BPF_PROG_TYPE_SCHED_CLS and (kind or hook):
            yield program, None if kind else hook
        if program.type == uapi.BPF_PROG_TYPE_XDP:
            yield program, None
