"""What becomes of links and programs when their device goes, moves, or somebody lets go of them."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from netbpf import Program
from netbpf.bpf import prog, uapi
from netbpf.bpf.link import Link
from netbpf.errors import BpfError, NotFoundError
from netbpf.netns import NetNS, entered
from tests.netns_fixtures import programs, rawbpf
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.namespaces import run
from tests.netns_fixtures.rawbpf import Raw

Load = Callable[..., Program]


def attached(site: Site, prog: Program, **where: object) -> Link:
    link = site.attach(prog, **where).link
    assert link is not None
    return link


def is_gone(number: int) -> bool:
    """Whether the program has left the kernel, which takes it a moment."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            Program.from_id(number).close()
        except NotFoundError:
            return True
        time.sleep(0.005)
    return False


def test_the_device_goes(site: Site, load: Load) -> None:
    """Programs are let go of; links stay as objects of nothing, and never come back."""
    with ExitStack() as stack:
        bare = programs.load_returning(programs.NEXT, "bare")
        site.attach(bare, link=False)
        links = [
            stack.enter_context(attached(site, load(programs.NEXT, f"p{number}")))
            for number in range(3)
        ]
        number = bare.id
        bare.close()
        assert site.ids()[0] == number, "the chain holds it"
        held = [(link.id, link.info().prog_id) for link in links]

        run(site.ns, ["ip", "link", "del", site.device])

        assert is_gone(number)
        for link, (link_id, prog_id) in zip(links, held, strict=True):
            info = link.info()
            assert (info.id, info.prog_id, info.ifindex) == (link_id, prog_id, 0)
            assert (info.defunct, info.hook) == (True, site.hook)
            with pytest.raises(BpfError) as caught:
                link.update(load(programs.NEXT))
            assert (caught.value.errno, caught.value.code) == (errno.ENOLINK, "defunct_link")
            link.detach()

        # Another device of the same ifindex is another one.
        kind = "netkit" if site.noun == "netkit" else "veth"
        run(site.ns, ["ip", "link", "add", "again", "index", str(site.ifindex), "type", kind])
        with entered(site.ns):
            assert socket.if_nametoindex("again") == site.ifindex
        assert site.chain().entries == ()
        assert all(link.info().defunct for link in links)


def test_the_device_moves_to_another_namespace(site: Site, load: Load, ns: NetNS) -> None:
    """Its chain goes with it; a link then counts in a namespace that it does not name."""
    bare = load(programs.NEXT, "bare")
    site.attach(bare, link=False)
    with attached(site, load(programs.NEXT, "one")) as link:
        before = site.chain()
        run(site.ns, ["ip", "link", "set", site.device, "netns", str(ns.name)])
        with pytest.raises(NotFoundError):
            site.chain()
        with entered(ns):
            there = socket.if_nametoindex(site.device)
            after = site.hooks.chain(there, site.hook)
        assert (after.entries, after.revision) == (before.entries, before.revision)
        assert (link.info().ifindex, link.info().defunct) == (there, False)
        two = load(programs.NEXT, "two")
        link.update(two)
        with entered(ns):
            site.hooks.attach(there, site.hook, load(programs.NEXT, "x"), before=two, link=False)
            assert [entry.prog_id for entry in site.hooks.chain(there, site.hook).entries][2:] == [
                two.id
            ]
    with entered(ns):
        assert len(site.hooks.chain(there, site.hook).entries) == 2, "the closed link took its own"


def test_who_closes_last_detaches(site: Site, load: Load) -> None:
    one = load(programs.NEXT, "one")
    with attached(site, one) as link, Link.from_id(link.id) as second:
        link.close()
        assert site.ids() == [one.id]
        with Link.from_fd(second.fileno()):
            second.close()
            assert site.ids() == [one.id]
        assert site.ids() == []


def test_a_link_holds_its_program(site: Site) -> None:
    one = programs.load_returning(programs.DROP, "one")
    with attached(site, one) as link:
        number = one.id
        one.close()
        assert site.drops()
        assert link.info().prog_id == number
        with programs.load_returning(programs.NEXT, "two") as two:
            link.update(two)
        assert is_gone(number), "the exchanged one is let go of"
        assert site.passes()
    assert site.ids() == []


def test_a_program_is_attached_until_it_is_detached(site: Site) -> None:
    one = programs.load_returning(programs.NEXT, "one")
    site.attach(one, link=False)
    number = one.id
    one.close()
    assert site.ids() == [number]
    site.call("detach", f"id:{number}")
    assert is_gone(number)


def test_a_detached_link_gives_its_program_free(site: Site, load: Load) -> None:
    one = load(programs.NEXT, "one")
    with attached(site, one) as first:
        first.detach()
        with attached(site, one) as second:
            assert (first.info().defunct, second.info().defunct) == (True, False)
            first.detach()
            assert site.chain().with_link(second.id) is not None


def test_one_program_at_several_hooks(site: Site, load: Load) -> None:
    one = load(programs.NEXT, "one")
    (other,) = set(site.hooks.names) - {site.hook}
    there = Raw(site.ns, site.hooks.hook(other), site.ifindex)
    with attached(site, one), there.create(one) as second:
        assert (site.ids(), there.query().progs) == ([one.id], [one.id])
        assert there.query().links == [second.id]
    assert (site.ids(), there.query().count) == ([], 0)


@pytest.mark.parametrize("size", [1, 5])
def test_the_expected_attach_type_is_not_looked_at(site: Site, size: int) -> None:
    """A program loaded for any of the hooks goes to all of them."""
    types = (
        0,
        uapi.BPF_TCX_INGRESS,
        uapi.BPF_TCX_EGRESS,
        uapi.BPF_NETKIT_PRIMARY,
        uapi.BPF_NETKIT_PEER,
    )[:size]
    with ExitStack() as stack:
        for expected in types:
            loaded = stack.enter_context(
                prog.load(
                    uapi.BPF_PROG_TYPE_SCHED_CLS,
                    programs.returning(programs.NEXT),
                    expected_attach_type=expected,
                )
            )
            rawbpf.at(site).attach(loaded)
        assert len(site.ids()) == size


def test_the_command_line_names_what_is_defunct(site: Site) -> None:
    place = ["-n", site.ns.name, site.device, site.hook]
    made = ok(site.noun, "attach", *place, "builtin:next")["attached"]
    number = made["link"]["id"]
    run(site.ns, ["ip", "link", "del", site.device])
    (shown,) = ok("link", "show", number)["links"]
    assert (shown["defunct"], shown["pins"]) == (True, made["link"]["pins"])
    result = netbpf("-j", site.noun, "update", *place, f"link:{number}", "builtin:next")
    assert (result.status, result.error["code"]) == (1, "not_found")
    assert ok("link", "detach", f"link:{number}")["detached"]["pins"] == made["link"]["pins"]
    assert site.own_pins() == []
