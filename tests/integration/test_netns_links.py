"""The kernel's rules for programs at a namespace, in netbpf's words: flow dissector and sk_lookup.

What is attached is looked at a second way: by bpftool, /proc/PID/fdinfo, or the raw query.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from netbpf import Link, NetNS, Program, netns
from netbpf.bpf import link_create, prog, syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.errors import BpfError, ConflictError, NetbpfError
from netbpf.netns import hooks, links
from tests.netns_fixtures import programs
from tests.netns_fixtures.leases import wait_until
from tests.netns_fixtures.namespaces import namespace, namespaces

HOOKS = ["flow_dissector", "sk_lookup"]


def loaded(hook: str, name: str = "made") -> Program:
    """A program that the hook takes and that changes nothing; the caller closes it."""
    place = hooks.hook_of(hook)
    # BPF_OK and SK_PASS; the kernel looks at the attach type of sk_lookup alone.
    code = {"flow_dissector": 0, "sk_lookup": 1}[hook]
    expected = place.attach_type if hook == "sk_lookup" else 0
    insns = programs.returning(code)
    return prog.load(place.prog_type, insns, name=name, expected_attach_type=expected)


@pytest.fixture
def two(request: pytest.FixtureRequest) -> Iterator[tuple[Program, Program]]:
    """Two flow dissectors."""
    with loaded("flow_dissector", "one") as one, loaded("flow_dissector", "two") as other:
        yield one, other


def raw_attach(ns: NetNS, hook: str, program: Program, **more: int) -> None:
    """BPF_PROG_ATTACH, word for word, inside the namespace."""
    attr = uapi.ProgAttachAttr(attach_type=hooks.hook_of(hook).attach_type)
    attr.attach_bpf_fd = program.fileno()
    for key, value in more.items():
        setattr(attr, key, value)
    with netns.entered(ns):
        syscall.prog_attach(attr)


def raw_detach(ns: NetNS, hook: str, program: Program) -> None:
    attr = uapi.ProgAttachAttr(attach_type=hooks.hook_of(hook).attach_type)
    attr.attach_bpf_fd = program.fileno()
    with netns.entered(ns):
        syscall.prog_detach(attr)


def refused(call: Any, *arguments: Any) -> str:
    """The name of the errno that the kernel refuses this with."""
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return errno.errorcode[caught.value.errno or 0]


def bpftool_links() -> dict[int, dict[str, Any]]:
    """The netns links as bpftool sees them, by id."""
    listed = subprocess.run(["bpftool", "-j", "link"], capture_output=True, text=True, check=True)
    return {each["id"]: each for each in json.loads(listed.stdout) if each["type"] == "netns"}


def fdinfo(link: Link) -> dict[str, str]:
    lines = Path(f"/proc/self/fdinfo/{link.fileno()}").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_link(ns: NetNS, hook: str) -> None:
    with loaded(hook) as program:
        placed = links.attach(ns, hook, program)
        assert placed.link is not None
        with placed.link as link:
            assert (placed.position, placed.prog_id) == (0, program.id)
            seen = bpftool_links()[link.id]
            assert (seen["netns_ino"], seen["attach_type"]) == (ns.inode, hook)
            assert seen["prog_id"] == program.id
            assert fdinfo(link)["netns_ino"] == str(ns.inode)
            (entry,) = links.attached(ns, hook).entries
            assert (entry.prog_id, entry.link_id) == (program.id, link.id)
        assert links.attached(ns, hook).entries == ()
        assert hooks.program_ids(ns, hooks.hook_of(hook)) == []


def test_one_flow_dissector(ns: NetNS, two: tuple[Program, Program]) -> None:
    one, other = two
    with links.attach(ns, "flow_dissector", one).link:  # type: ignore[union-attr]
        with pytest.raises(BpfError, match=r"takes one flow_dissector, .*one \(id:") as caught:
            links.attach(ns, "flow_dissector", other)
        assert caught.value.errno == errno.E2BIG
        with pytest.raises(BpfError) as foreseen:
            links.check_attach(ns, "flow_dissector", other.id)
        assert str(foreseen.value) == str(caught.value)
    links.attach(ns, "flow_dissector", other).link.close()  # type: ignore[union-attr]


def test_sixty_four_sk_lookups_in_the_order_of_attaching(ns: NetNS) -> None:
    with ExitStack() as stack:
        program = stack.enter_context(loaded("sk_lookup", "shared"))
        other = stack.enter_context(loaded("sk_lookup", "other"))
        made = []
        for number in range(64):
            # The same program may hang there many times, only links tell them apart.
            placed = links.attach(ns, "sk_lookup", other if number == 40 else program)
            assert placed.link is not None
            assert placed.position == number
            made.append(stack.enter_context(placed.link))
        with pytest.raises(BpfError, match="64 programs are there") as caught:
            links.attach(ns, "sk_lookup", program)
        assert caught.value.errno == errno.E2BIG
        with pytest.raises(BpfError, match="64 programs are there"):
            links.check_attach(ns, "sk_lookup", None)
        ids = [link.id for link in made]
        assert [entry.link_id for entry in links.attached(ns, "sk_lookup").entries] == ids

        removed = links.detach(ns, "sk_lookup", "name:other")
        assert (removed.entry.position, removed.entry.link_id) == (40, ids[40])
        assert made[40].info().defunct
        left = links.attached(ns, "sk_lookup")
        assert [entry.link_id for entry in left.entries] == ids[:40] + ids[41:]
        with pytest.raises(NetbpfError, match=r"could be any of 63 programs"):
            left.find(f"id:{program.id}")
        links.detach(ns, "sk_lookup", f"link:{ids[0]}")
        assert len(hooks.program_ids(ns, hooks.hook_of("sk_lookup"))) == 62


def test_links_exclude_direct_attachment(ns: NetNS, two: tuple[Program, Program]) -> None:
    one, other = two
    with links.attach(ns, "flow_dissector", one).link:  # type: ignore[union-attr]
        assert refused(raw_attach, ns, "flow_dissector", other) == "EEXIST"
        with pytest.raises(BpfError, match="beside a link nothing is attached dir") as caught:
            links.attach(ns, "flow_dissector", other, link=False)
        assert caught.value.errno == errno.EEXIST
        with pytest.raises(BpfError) as foreseen:
            links.check_attach(ns, "flow_dissector", other.id, link=False)
        assert str(foreseen.value) == str(caught.value)
        # Only the link can take its program out.
        assert refused(raw_detach, ns, "flow_dissector", one) == "EINVAL"
        assert hooks.program_ids(ns, hooks.hook_of("flow_dissector")) == [one.id]


def test_direct_attachment_excludes_links(ns: NetNS, two: tuple[Program, Program]) -> None:
    one, other = two
    placed = links.attach(ns, "flow_dissector", one, link=False)
    assert (placed.position, placed.link_id) == (0, None)
    assert not bpftool_links()
    with pytest.raises(BpfError, match=r"one \(id:\d+\) is attached there directly") as caught:
        links.attach(ns, "flow_dissector", other)
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(BpfError) as foreseen:
        links.check_attach(ns, "flow_dissector", other.id)
    assert str(foreseen.value) == str(caught.value)
    removed = links.detach(ns, "flow_dissector", "name:one")
    assert removed.entry.prog_id == one.id
    assert hooks.program_ids(ns, hooks.hook_of("flow_dissector")) == []


def test_direct_over_direct_is_an_update(ns: NetNS, two: tuple[Program, Program]) -> None:
    one, other = two
    links.attach(ns, "flow_dissector", one, link=False)
    with pytest.raises(BpfError, match="this very program") as caught:
        links.attach(ns, "flow_dissector", one, link=False)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(BpfError, match="this very program"):
        links.check_attach(ns, "flow_dissector", one.id, link=False)
    for check in (False, True):
        with pytest.raises(ConflictError, match="is attached there directly"):
            if check:
                links.check_attach(ns, "flow_dissector", other.id, link=False)
            else:
                links.attach(ns, "flow_dissector", other, link=False)
    assert hooks.program_ids(ns, hooks.hook_of("flow_dissector")) == [one.id]
    with pytest.raises(ConflictError, match="the place is held by one"):
        links.update(ns, "flow_dissector", "name:one", other, old=other)
    placed = links.update(ns, "flow_dissector", "name:one", other, old=one)
    assert (placed.old_prog_id, placed.link_id) == (one.id, None)
    assert hooks.program_ids(ns, hooks.hook_of("flow_dissector")) == [other.id]
    # Another than the one that is there cannot be taken out (ENOENT).
    assert refused(raw_detach, ns, "flow_dissector", one) == "ENOENT"
    links.detach(ns, "flow_dissector", other)


def test_direct_attachment_ends_with_the_namespace(two: tuple[Program, Program]) -> None:
    with loaded("flow_dissector", "brief") as brief:
        number = brief.id
        with namespace() as ns:
            links.attach(ns, "flow_dissector", brief, link=False)
    assert wait_until(lambda: number not in set(Program.ids()))


def test_what_the_kernel_refuses_word_for_word(ns: NetNS, two: tuple[Program, Program]) -> None:
    one, other = two
    fd = ns.fileno()
    # No flags, no target, no program to replace, for direct attachment.
    for more in ({"attach_flags": 1}, {"replace_bpf_fd": other.fileno()}, {"target_fd": fd}):
        assert refused(lambda more=more: raw_attach(ns, "flow_dissector", one, **more)) == "EINVAL"
    with loaded("sk_lookup") as lookup:
        assert refused(raw_attach, ns, "sk_lookup", lookup) == "EINVAL"
        assert refused(link_create.netns, lookup.fileno(), fd, uapi.BPF_FLOW_DISSECTOR) == "EINVAL"
    attr = uapi.LinkCreateAttr(attach_type=uapi.BPF_FLOW_DISSECTOR, flags=1)
    attr.prog_fd, attr.target_fd = one.fileno(), fd
    assert refused(syscall.link_create, attr) == "EINVAL"
    # The target is a namespace: neither a number of nothing nor a descriptor of something else.
    with open(os.devnull) as null:
        kind = uapi.BPF_FLOW_DISSECTOR
        assert refused(link_create.netns, one.fileno(), null.fileno(), kind) == "EINVAL"
    assert refused(link_create.netns, one.fileno(), 1 << 20, uapi.BPF_FLOW_DISSECTOR) == "EBADF"
    assert hooks.program_ids(ns, hooks.hook_of("flow_dissector")) == []


def test_a_query_with_too_little_room(ns: NetNS) -> None:
    with ExitStack() as stack:
        program = stack.enter_context(loaded("sk_lookup"))
        for _ in range(3):
            stack.enter_context(links.attach(ns, "sk_lookup", program).link)  # type: ignore[arg-type]
        room = (ctypes.c_uint32 * 2)()
        attr = uapi.ProgQueryAttr(attach_type=uapi.BPF_SK_LOOKUP, count=2)
        attr.target_fd, attr.prog_ids = ns.fileno(), ctypes.addressof(room)
        assert refused(syscall.prog_query, attr) == "ENOSPC"
        assert attr.count == 3
        assert hooks.program_ids(ns, hooks.hook_of("sk_lookup")) == [program.id] * 3


@pytest.mark.parametrize("hook", HOOKS)
def test_the_old_program_is_freed_while_an_update_looks(
    ns: NetNS, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looks = links.check_update, []
    with loaded(hook, "two") as other, loaded(hook, "three") as last:
        with loaded(hook, "one") as one:
            link = links.attach(ns, hook, one).link
        assert link is not None

        def exchanged_after(*arguments: Any, **more: Any) -> Any:
            entry = look(*arguments, **more)
            looks.append(entry.prog_id)
            if len(looks) == 1:
                syscall.link_update(link.fileno(), other.fileno(), 0, 0)
                assert wait_until(lambda: entry.program() is None)
            return entry

        monkeypatch.setattr(links, "check_update", exchanged_after)
        with link:
            placed = links.update(ns, hook, f"link:{link.id}", last)
            assert (placed.old_prog_id, looks[1:]) == (other.id, [other.id])
            assert bpftool_links()[link.id]["prog_id"] == last.id


@pytest.mark.parametrize("hook", HOOKS)
def test_update_under_the_link(ns: NetNS, hook: str) -> None:
    other_hook = next(each for each in HOOKS if each != hook)
    with ExitStack() as stack:
        one, other = (stack.enter_context(loaded(hook, name)) for name in ("one", "two"))
        foreign = stack.enter_context(loaded(other_hook, "foreign"))
        link = links.attach(ns, hook, one).link
        assert link is not None
        stack.enter_context(link)
        placed = links.update(ns, hook, "name:one", other)
        assert (placed.old_prog_id, placed.prog_id, placed.link_id) == (one.id, other.id, link.id)
        assert bpftool_links()[link.id]["prog_id"] == other.id
        with pytest.raises(ConflictError, match=r"the place is held by two"):
            links.update(ns, hook, f"link:{link.id}", one, old="name:one")
        # The kernel's own guard: the old program is not the link's.
        with pytest.raises(BpfError) as guarded:
            link.update(one, old=one)
        assert guarded.value.errno == errno.EPERM
        with pytest.raises(BpfError, match=f"foreign is of type {other_hook}") as caught:
            links.update(ns, hook, f"link:{link.id}", foreign)
        assert caught.value.errno == errno.EINVAL
        # The same program again is no change, and no error.
        assert links.update(ns, hook, other, other).old_prog_id == other.id
        link.detach()
        with pytest.raises(BpfError) as defunct:
            link.update(one)
        assert defunct.value.errno == errno.ENOLINK
        link.detach()


@pytest.mark.parametrize("hook", HOOKS)
def test_a_link_does_not_keep_its_namespace(hook: str) -> None:
    with loaded(hook) as program, loaded(hook, "later") as later:
        with namespace() as ns:
            link = links.attach(ns, hook, program).link
            assert link is not None
            inode = ns.inode
        with link:
            assert wait_until(lambda: link.info().defunct)
            assert fdinfo(link)["netns_ino"] == "0"
            assert inode not in {each.inode for each in netns.scan()}
            with pytest.raises(BpfError) as caught:
                link.update(later)
            assert caught.value.errno == errno.ENOLINK
            # Detaching what is detached is done already.
            link.detach()


def test_an_attachment_never_leaves_the_thread_elsewhere(two: tuple[Program, Program]) -> None:
    one, _ = two
    before = os.stat("/proc/thread-self/ns/net").st_ino
    with namespaces(2) as (a, b):
        links.attach(a, "flow_dissector", one, link=False)
        assert os.stat("/proc/thread-self/ns/net").st_ino == before
        assert hooks.program_ids(a, hooks.hook_of("flow_dissector")) == [one.id]
        assert hooks.program_ids(b, hooks.hook_of("flow_dissector")) == []


@pytest.mark.needs("spare-kernel")
def test_the_initial_namespace_excludes_all_others(ns: NetNS, two: tuple[Program, Program]) -> None:
    one, other = two
    with NetNS.from_pid(1) as initial:
        with links.attach(ns, "flow_dissector", one).link:  # type: ignore[union-attr]
            with pytest.raises(BpfError, match=f"initial namespace's.*{ns.name}") as caught:
                links.attach(initial, "flow_dissector", other)
            assert caught.value.errno == errno.EEXIST
            with pytest.raises(BpfError) as foreseen:
                links.check_attach(initial, "flow_dissector", other.id)
            assert str(foreseen.value) == str(caught.value)
            with pytest.raises(BpfError, match="initial namespace's"):
                links.attach(initial, "flow_dissector", other, link=False)
        with links.attach(initial, "flow_dissector", other).link:  # type: ignore[union-attr]
            with pytest.raises(BpfError, match=r"there is one in pid:1") as caught:
                links.attach(ns, "flow_dissector", one)
            assert caught.value.errno == errno.EEXIST
            with pytest.raises(BpfError) as foreseen:
                links.check_attach(ns, "flow_dissector", one.id)
            assert str(foreseen.value) == str(caught.value)
            # sk_lookup knows no such rule.
            with loaded("sk_lookup") as lookup:
                links.attach(ns, "sk_lookup", lookup).link.close()  # type: ignore[union-attr]


def test_mistakes_of_the_caller(ns: NetNS, two: tuple[Program, Program]) -> None:
    with pytest.raises(ValueError, match="no hook ingress: it is flow_dissector or sk_lookup"):
        links.attached(ns, "ingress")
    with pytest.raises(TypeError, match="load it first"):
        links.attach(ns, "sk_lookup", "many_ports.o")  # type: ignore[arg-type]
    with (
        loaded("sk_lookup") as lookup,
        pytest.raises(ValueError, match="sk_lookup takes links only"),
    ):
        links.attach(ns, "sk_lookup", lookup, link=False)
    with pytest.raises(BpfError, match="one is of type flow_dissector") as caught:
        links.attach(ns, "sk_lookup", two[0])
    assert caught.value.errno == errno.EINVAL


def test_nobody_may_attach_what_he_holds(ns: NetNS, two: tuple[Program, Program]) -> None:
    """Holding program and namespace is all that attaching takes; reading takes CAP_NET_ADMIN."""
    from tests.netns_fixtures.rawprocess import without_capabilities

    one, _ = two

    def part() -> str:
        with FD(link_create.netns(one.fileno(), ns.fileno(), uapi.BPF_FLOW_DISSECTOR)):
            try:
                hooks.program_ids(ns, hooks.hook_of("flow_dissector"))
            except OSError as error:
                return errno.errorcode[error.errno or 0]
        return "read"

    assert without_capabilities(part, lambda: None) == "EPERM"
