"""Where the programs of a skeleton go: what their sections say, and at a device those for one."""

from __future__ import annotations

from collections.abc import Iterator

from netbpf.bpf import uapi
from netbpf.elf.spec import ObjectSpec, ProgramSpec
from netbpf.errors import NetbpfError
from netbpf.interrupts import held as uninterrupted
from netbpf.loader.object import Object
from netbpf.plumbing import attach as plumbing

HOOKS = ("ingress", "egress", "primary", "peer")


def attach_all(obj: Object, ifindex: int | None, hook: str | None) -> plumbing.Attachments:
    """Attach the loaded programs of ``obj``, all or none.

    Programs of ``tcx/…``, ``netkit/…`` and ``xdp`` go to the device, those of ``tc`` to its
    ``hook``, unless they are only there to be jumped to; what needs no place goes where its section
    says. The others are left alone, and told in ``open``.

    :raises NetbpfError: there is none to attach. Also raises what ``plumbing.attach`` raises.
    """
    if hook is not None and hook not in HOOKS:
        raise ValueError(f"no hook {hook}: it is {', '.join(HOOKS)}")
    made = plumbing.Attachments()
    try:
        for spec, where in _places(obj.spec, ifindex, hook):
            if spec.name not in obj.programs or spec.type == uapi.BPF_PROG_TYPE_STRUCT_OPS:
                continue
            if where is None:
                made.open[spec.name] = plumbing.left_open(spec) or "which hook"
                continue
            with uninterrupted():
                made.add(plumbing.attach(spec, obj.programs[spec.name], **where))
        for struct in obj.spec.maps:
            ops = struct.struct_ops
            if ops is not None and ops.link and struct.name in obj.maps:
                with uninterrupted():
                    made.add(plumbing.attach_struct_ops(struct, obj.maps[struct.name]))
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


def _places(
    spec: ObjectSpec, ifindex: int | None, hook: str | None
) -> Iterator[tuple[ProgramSpec, dict[str, object] | None]]:
    # Each program with what is to be said of its place; None where that is not known.
    jumped_to = {name for m in spec.maps if m.inner is None for _, name in m.slots}
    for program in spec.programs:
        kind = program.expected_attach_type
        if program.type == uapi.BPF_PROG_TYPE_SCHED_CLS:
            if ifindex is None or program.name in jumped_to or not (kind or hook):
                yield program, None
            else:
                yield program, {"ifindex": ifindex, "hook": None if kind else hook}
        elif program.type == uapi.BPF_PROG_TYPE_XDP:
            entry = kind in (uapi.BPF_XDP_DEVMAP, uapi.BPF_XDP_CPUMAP)
            known = ifindex is not None and not entry and program.name not in jumped_to
            yield program, {"ifindex": ifindex} if known else None
        else:
            yield program, {} if plumbing.left_open(program) is None else None
