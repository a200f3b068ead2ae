"""Many netkit devices: made and deleted at once, shown over all namespaces, killed and raced."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from netbpf import netkit, netns
from netbpf.errors import NetlinkError, NotFoundError
from netbpf.netkit import marks, removal
from netbpf.netkit.model import Settings
from netbpf.netlink import links
from netbpf.netlink.rtnl import Refusal
from netbpf.netns import NetNS
from tests.netns_fixtures import devices
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.devices import rtnl_in
from tests.netns_fixtures.namespaces import namespace, namespaces, run

pytestmark = pytest.mark.needs("netkit")


def seen(ns):
    """The devices of a namespace but ``lo``, by name, as ``ip -d`` sees them."""
    found = json.loads(run(ns, ["ip", "-d", "-j", "addr", "show"]).stdout)
    return {link["ifname"]: link for link in found if link and link["ifname"] != "lo"}


class TestAddMany:
    def test_all_of_them_as_asked(self, two_ns):
        a, b = two_ns
        wanted = [
            *Settings.numbered("plain{}", range(30)),
            *Settings.numbered("far{}", range(5), peer="eth{}", peer_netns=b, group=4, mtu=1300),
            *Settings.numbered("up{}", range(5), peer="upp{}", up=True, alias="x", peer_group=6),
            Settings(name="nk0"),
            Settings(name="nk1", addrs=["10.1.0.1/24"], peer_addrs=["10.1.0.2/24"]),
        ]
        with netns.entered(a):
            made = netkit.add_many(wanted)
        assert [one.name for one in made] == [one.name for one in wanted]
        here, there = seen(a), seen(b)
        assert {one.name: one.ifindex for one in made}.items() <= {
            name: link["ifindex"] for name, link in here.items()
        }.items()
        assert len(here) == 2 * 30 + 5 + 2 * 5 + 4
        assert set(there) == {f"eth{n}" for n in range(5)}
        assert here["far3"]["group"] == "4" and there["eth3"]["mtu"] == 1300
        up = [here[f"{name}{n}"] for name in ("up", "upp") for n in range(5)]
        assert {link["operstate"] for link in up} == {"UP"}
        assert (here["up1"]["ifalias"], here["up1"]["group"]) == ("x", "default")
        assert here["upp1"]["group"] == "6"
        by_index = {link["ifindex"]: link for link in here.values()}
        last = made[-1]
        assert here["nk1"]["addr_info"][0]["local"] == "10.1.0.1"
        assert by_index[last.peer_ifindex]["addr_info"][0]["local"] == "10.1.0.2"

    @pytest.mark.parametrize("more", [{}, {"up": True}])
    def test_one_that_is_refused_takes_all_along(self, ns, more):
        with devices.device(ns, "x17"):
            before = seen(ns)
            with netns.entered(ns):
                with pytest.raises(NetlinkError, match="add x17: there is a device x17 here"):
                    netkit.add_many(Settings.numbered("x{}", range(40), **more))
                with pytest.raises(NetlinkError, match="add y3: mtu"):
                    wanted = [*Settings.numbered("y{}", range(3)), Settings(name="y3", mtu=20)]
                    netkit.add_many([*wanted, Settings(name="y4")])
                with pytest.raises(NetlinkError, match="the address fd00::1/64"):
                    wanted = [Settings(name="z0"), Settings(name="z1", addrs=["fd00::1/64"])]
                    netkit.add_many(wanted)
            assert seen(ns) == before

    def test_ctrl_c_in_the_middle(self, ns):
        script = (
            "import os, signal, sys, threading\n"
            "from netbpf import netkit, netns\n"
            "with netns.NetNS.from_name(sys.argv[1]) as ns: netns.enter_for_good(ns)\n"
            "for number in range(4):\n"
            "    wanted = list(netkit.Settings.numbered('k{}', range(150), up=number % 2 == 0))\n"
            "    after = .1 + number * .05\n"
            "    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))\n"
            "    try:\n"
            "        timer.start(); netkit.add_many(wanted); timer.join(); signal.pause()\n"
            "    except KeyboardInterrupt: timer.join()\n"
            "    left = netkit.show()\n"
            "    if len(left) not in (0, 300) or any(one.unfinished for one in left):\n"
            "        sys.exit(f'{number}: {len(left)} left')\n"
            "    if left: netkit.delete(*(one.ifindex for one in left))\n"
        )
        done = run(ns, [sys.executable, "-c", script, ns.name], check=False)
        assert done.returncode == 0, done.stderr


class TestDeleteTogether:
    def test_only_those_named_and_others_of_the_same_groups_stay(self, two_ns):
        a, b = two_ns
        with netns.entered(a):
            netkit.add_many(Settings.numbered("nk{}a", range(60), peer="nk{}b", group=5))
            netkit.add("far", peer="eth0", peer_netns=b)
        before = seen(a)
        gone = [f"nk{n}a" for n in range(0, 60, 2)]
        result = ok("netkit", "del", "-n", a.name, *gone, "nk1b", "far")
        assert result["deleted"] == [*gone, "nk1b", "far"]
        left = {name for n in range(3, 60, 2) for name in (f"nk{n}a", f"nk{n}b")}
        assert seen(a) == {name: link for name, link in before.items() if name in left}
        assert seen(b) == {}

    def test_a_thousand_wait_no_longer_than_a_few(self, ns):
        """Beside what each would wait: they are deleted in a fraction of it."""
        with netns.entered(ns):
            netkit.add_many(Settings.numbered("nk{}a", range(200), peer="nk{}b"))
            began = time.monotonic()
            for number in range(8):
                netkit.delete(f"nk{number}a")
            each = (time.monotonic() - began) / 8
            began = time.monotonic()
            netkit.delete(*(f"nk{number}a" for number in range(8, 200)))
            together = (time.monotonic() - began) / 192
        assert seen(ns) == {}
        assert together < each / 2, f"{together * 1000:.1f} ms each, alone {each * 1000:.1f} ms"

    @pytest.mark.parametrize("group", [0, 9])
    def test_one_that_goes_meanwhile_keeps_the_others(self, ns, monkeypatch, group):
        with netns.entered(ns):
            for name in ("a0", "b0", "c0"):
                netkit.add(name, group=group)
        whole = removal.netkit_link

        def going(rtnl, device):
            found = whole(rtnl, device)
            if found.name == "b0":
                links.delete(rtnl, found.ifindex)
            return found

        monkeypatch.setattr(removal, "netkit_link", going)
        with netns.entered(ns), pytest.raises(NotFoundError, match="any more: somebody else"):
            netkit.delete("a0", "b0", "c0")
        left = seen(ns)
        assert {"a0", "c0"} <= set(left) and "b0" not in left
        with netns.entered(ns):
            assert {one.group for one in netkit.show() if one.primary} == {group}
            assert not any(one.unfinished for one in netkit.show())

    def test_a_refusal_puts_the_groups_back(self, ns, monkeypatch):
        def refused(rtnl, group):
            raise Refusal(1)

        with netns.entered(ns):
            netkit.add_many(Settings.numbered("nk{}a", range(5), group=3))
            monkeypatch.setattr(links, "delete_group", refused)
            with pytest.raises(NetlinkError, match=r"delete 2 devices.*EPERM.*CAP_NET_ADMIN"):
                netkit.delete("nk0a", "nk3a")
            assert [one.group for one in netkit.show() if one.primary] == [3] * 5

    def test_killed_in_between_they_are_named_and_a_second_run_deletes_them(self, ns, monkeypatch):
        with netns.entered(ns):
            for name in ("a0", "b0"):
                netkit.add(name, peer=f"{name}p")
            with rtnl_in(ns) as rtnl:
                for one in netkit.show():
                    links.change(rtnl, one.ifindex, attributes=[("IFLA_GROUP", marks.deleting())])
            assert {one.unfinished for one in netkit.show()} == {"del"}
        assert "unfinished del" in netbpf("netkit", "show", "-n", ns.name).out
        ok("netkit", "del", "-n", ns.name, "a0", "b0")
        assert seen(ns) == {}


class TestAllNamespaces:
    def test_each_end_says_where_the_other_is(self):
        with namespaces(3) as (a, b, c):
            with netns.entered(a):
                netkit.add("nk0", peer="eth0", peer_netns=b, addrs=["10.1.0.1/24"], up=True)
                netkit.add("nk1", peer="eth0", peer_netns=c, alias="the third")
                netkit.add("local", peer="local2")
            with netns.entered(b):
                netkit.add("nk9", peer="nk9", peer_netns=c)
            found = ok("netkit", "show", "--all-netns", "-n", a.name)["devices"]
            ours = [one for one in found if one["netns"] in (a.name, b.name, c.name)]
            where = {(one["netns"], one["name"]): one["peer"] for one in ours}
            assert {key: (peer["netns"], peer["name"]) for key, peer in where.items()} == {
                (a.name, "nk0"): (b.name, "eth0"),
                (a.name, "nk1"): (c.name, "eth0"),
                (a.name, "local"): (None, "local2"),
                (a.name, "local2"): (None, "local"),
                (b.name, "eth0"): (a.name, "nk0"),
                (c.name, "eth0"): (a.name, "nk1"),
                (b.name, "nk9"): (c.name, "nk9"),
                (c.name, "nk9"): (b.name, "nk9"),
            }
            # Each is as its own namespace shows it.
            for ns in (a, b, c):
                alone = ok("netkit", "show", "-n", ns.name)["devices"]
                assert [one for one in ours if one["netns"] == ns.name] == alone
            text = netbpf("netkit", "show", "--all-netns").out
            assert f"{c.name}:eth0" in text and "the third" in text

    def test_a_name_with_it_is_refused(self):
        result = netbpf("-j", "netkit", "show", "--all-netns", "nk0")
        assert (result.status, result.error["code"]) == (2, "usage")

    def test_a_namespace_that_nobody_sees(self, ns):
        """Its handle alone keeps it: the other end is named by the number that the kernel has."""
        with namespace() as hidden:
            handle = NetNS.from_name(hidden.name)
            with netns.entered(ns):
                netkit.add("nk0", peer="eth0", peer_netns=hidden)
        try:
            (one,) = ok("netkit", "show", "--all-netns", "-n", ns.name)["devices"]
            (alone,) = ok("netkit", "show", "-n", ns.name)["devices"]
        finally:
            handle.close()
        assert one["peer"]["netns"] == alone["peer"]["netns"]
        assert one["peer"]["netns"].startswith("nsid:")


ADD = (
    *("netkit", "add", "nk0", "--peer", "eth0", "--mtu", "1400", "--alias", "made"),
    *("--addr", "10.1.0.1/24", "--addr", "10.1.1.1/24", "--peer-addr", "10.1.0.2/24", "--up"),
)


def whole(ns):
    """Whether the pair of `ADD` is there with all that was asked for."""
    links = seen(ns)
    return (
        set(links) == {"nk0", "eth0"}
        and len([one for one in links["nk0"]["addr_info"] if one["family"] == "inet"]) == 2
        and len([one for one in links["eth0"]["addr_info"] if one["family"] == "inet"]) == 1
        and all(link["mtu"] == 1400 and "UP" in link["flags"] for link in links.values())
        and links["nk0"]["ifalias"] == "made"
        and all(link["group"] == "default" for link in links.values())
    )


def test_a_killed_add_leaves_nothing_a_whole_pair_or_one_that_is_named(ns):
    """SIGKILL at forty moments of the steps that make it; a second run then makes it whole."""
    # The command itself, without its start: forty starts would cost minutes here.
    script = (
        "import os, sys, time\n"
        "from netbpf import netns; from netbpf.cli.main import main\n"
        "import netbpf.netkit.device, netbpf.cli.netkit\n"
        "from netbpf.netlink.rtnl import Rtnl\n"
        # Tells when it begins; and waits between the messages, so that these moments are met too.
        "ask, told = Rtnl._ask, []\n"
        "def slowly(*rest):\n"
        "    if not told: told.append(os.write(1, b'begun\\n'))\n"
        "    time.sleep(.01)\n"
        "    return ask(*rest)\n"
        "Rtnl._ask = slowly\n"
        "sys.stdout = open(os.devnull, 'w')\n"
        "while True:\n"
        "    os.read(0, 1); pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os.read(0, 1); sys.exit(main(sys.argv[1:]))\n"
        "    os.write(1, b'%d\\n' % pid); os.waitpid(pid, 0); os.write(1, b'gone\\n')\n"
    )
    argv = [sys.executable, "-c", script, "--json", "-n", ns.name, *ADD]
    outcomes = {"nothing": 0, "whole": 0, "unfinished": 0}
    chance = random.Random(1)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None

        def once(delay):
            os.write(process.stdin.fileno(), b"x")
            pid = int(process.stdout.readline())
            os.write(process.stdin.fileno(), b"x")
            assert process.stdout.readline() == b"begun\n"
            began = time.monotonic()
            if delay is not None:
                time.sleep(delay)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert process.stdout.readline() == b"gone\n"
            return time.monotonic() - began

        try:
            for _ in range(2):
                span = once(None)
                assert whole(ns)
                ok("netkit", "del", "-n", ns.name, "nk0")
            for turn in range(40):
                once(chance.uniform(0, span))
                if not seen(ns):
                    outcomes["nothing"] += 1
                    continue
                kind = "whole" if whole(ns) else "unfinished"
                outcomes[kind] += 1
                with netns.entered(ns):
                    named = {one.unfinished for one in netkit.show()}
                    assert named == {None if kind == "whole" else "add"}
                    if kind == "whole" or turn % 2:
                        netkit.delete("nk0")
                        continue
                assert "unfinished add" in netbpf("netkit", "show", "-n", ns.name).out
                ok(*ADD[:2], "-n", ns.name, *ADD[2:])
                assert whole(ns)
                ok("netkit", "del", "-n", ns.name, "nk0")
        finally:
            process.kill()
    assert outcomes["unfinished"] >= 5, outcomes
    assert sum(outcomes.values()) == 40


def test_an_unfinished_device_of_somebody_who_lives_is_left_alone(ns):
    with netns.entered(ns), marks.making() as group:
        with rtnl_in(ns) as rtnl:
            made = netkit.add("nk0", peer="eth0")
            links.change(rtnl, made.ifindex, attributes=[("IFLA_GROUP", group)])
        for name in ("nk0", "eth0"):
            assert netkit.get(name).unfinished == "add"
        result = netbpf("-j", "netkit", "add", "-n", ns.name, "nk0")
        assert (result.status, result.error["code"]) == (5, "exists")
        assert "there is an unfinished device nk0 here" in result.error["message"]
        assert "netbpf netkit del nk0" in result.error["hint"]
        assert netkit.get("nk0").ifindex == made.ifindex
    # Its maker is gone: now adding it again begins with removing it.
    with netns.entered(ns):
        again = netkit.add("nk0", peer="eth1")
        assert again.ifindex != made.ifindex and again.unfinished is None
    assert set(seen(ns)) == {"nk0", "eth1"}


def test_eight_processes_add_and_delete_side_by_side(ns):
    """Fifty devices each, half of the names the same for all: what is refused is explained."""
    script = (
        "import sys; from netbpf import netkit, netns\n"
        "from netbpf.errors import NetbpfError\n"
        "number = int(sys.argv[2])\n"
        "with netns.NetNS.from_name(sys.argv[1]) as ns: netns.enter_for_good(ns)\n"
        "sys.stdin.read()\n"
        "refusals, made = [], []\n"
        "for turn in range(50):\n"
        # The kernel, or netbpf for a name like its own, calls the peers nkN.
        "    own = f'nk{5000 + turn * 8 + number}' if turn % 3 else f'own{number}-{turn}'\n"
        "    name = own if turn % 2 else f'same{turn}'\n"
        "    try:\n"
        "        netkit.add(name, up=turn % 3 == 0)\n"
        "        if turn % 5 == 4: netkit.show()\n"
        "        if turn % 2 == 0: netkit.delete(name)\n"
        "    except NetbpfError as error: refusals.append(str(error))\n"
        "    if turn % 2: made.append(own)\n"
        "try: netkit.delete(*made)\n"
        "except NetbpfError as error: refusals.append('at the end ' + str(error))\n"
        "print('\\n'.join(refusals))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, ns.name, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    told = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, ""), err
        told += out.splitlines()
    assert seen(ns) == {}, "a device is left"
    known = (
        "here already (EEXIST): take another name",
        "there is an unfinished device",
        "any more: somebody else deleted it",
        "no netkit device same",
        "its peer is gone already",
        "the device is gone",
        "the name is taken (EEXIST)",
    )
    unexplained = [line for line in told if line and not any(word in line for word in known)]
    assert not unexplained, unexplained[:10]
    assert not [line for line in told if line.startswith("at the end")], told
    assert told, "nothing was refused: they did not meet"
