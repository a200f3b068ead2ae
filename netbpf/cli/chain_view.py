"""Chains, with all else that handles the packets there, as a document and as a table.

Imported by commands that look at thousands of devices: what is heavy is imported where it is used.
"""

from __future__ import annotations

import time

from netbpf.cli import told
from netbpf.cli.output import emit, note
from netbpf.cli.settings import settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from netbpf.bpf.query import Facts
    from netbpf.bpf.stats import Runs
    from netbpf.cli.output import Document
    from netbpf.netlink.filters import Filter
    from netbpf.plumbing.packet_path import Path, Reader

    Found = Sequence[tuple[str | None, Path]]


class Counted:
    """What was counted while it was waited."""

    def __init__(self, runs: Mapping[int, Runs], elsewhere: set[int], seconds: float) -> None:
        self.runs = runs
        self.elsewhere = elsewhere
        self.seconds = seconds


def show_tcx(
    device: str | None,
    hook: str | None,
    *,
    all_netns: bool = False,
    stats: bool = False,
    seconds: float | None = None,
) -> None:
    """Show what handles the packets of a device, or of all: ``netbpf tcx show``."""
    from netbpf.plumbing.packet_path import HOOKS, Reader

    hooks = _checked(HOOKS, hook)
    wait = _wait(stats, seconds)
    reader = Reader()
    found: list[tuple[str | None, Path]] = []
    others: list[Path] = []
    for netns in _namespaces(all_netns):
        here = _paths(reader, device, hooks, everywhere=all_netns)
        found += [(netns, path) for path in here]
        if wait is not None:
            others += reader.paths()
    if device is not None and not found:
        from netbpf.errors import NotFoundError

        raise NotFoundError("device", device, where="in any network namespace")
    counted = None if wait is None else count(found, wait, others)
    show(found, reader, empty=device is not None, counted=counted)


def _paths(reader: Reader, device: str | None, hooks: list[str], *, everywhere: bool) -> list[Path]:
    """The paths in this namespace; ``everywhere``: none where it has no such device."""
    if not everywhere:
        return reader.paths(device, hooks)
    from netbpf.errors import NotFoundError

    try:
        return reader.paths(device, hooks)
    except NotFoundError:
        return []


def show_sides(device: str, hook: str | None, *, stats: bool, seconds: float | None) -> None:
    """Show the programs on the sides of a netkit device: ``netbpf netkit chain``."""
    from netbpf.plumbing.packet_path import SIDES, Reader

    hooks = _checked(SIDES, hook)
    wait = _wait(stats, seconds)
    reader = Reader()
    here = reader.sides(device, hooks)
    found = [(settings.netns, path) for path in here]
    counted = None
    if wait is not None:
        others = reader.paths()
        seen = {(path.netkit.ifindex, path.netkit.hook) for path in others if path.netkit}
        others += [path for path in here if (path.ifindex, path.hook) not in seen]
        counted = count(found, wait, others)
    show(found, reader, empty=True, counted=counted)


def _checked(known: Mapping[str, int], hook: str | None) -> list[str]:
    if hook is not None and hook not in known:
        raise ValueError(f"no hook {hook}: it is {' or '.join(known)}")
    return [hook] if hook else list(known)


def _wait(stats: bool, seconds: float | None) -> float | None:
    if seconds is not None and not stats:
        raise ValueError("--seconds says how long --stats counts: give both")
    return (1.0 if seconds is None else seconds) if stats else None


def _namespaces(everywhere: bool) -> Iterable[str | None]:
    if not everywhere:
        return [settings.netns]
    from netbpf.cli.namespaces import each_namespace

    return each_namespace(True)


def show(found: Found, reader: Reader, *, empty: bool, counted: Counted | None = None) -> None:
    """Print paths, each with how its namespace is written; the empty ones only where ``empty``."""
    listed = [(netns, path) for netns, path in found if empty or path]
    view = _View(reader, counted)
    documents = view.documents(listed)
    seconds = round(counted.seconds, 3) if counted else None

    def render() -> None:
        from netbpf.cli.chain_table import chain_table

        chain_table(documents, counted)

    emit({"chains": documents, "seconds": seconds}, render)
    # Those of other namespaces are none that a guard of this one could mean.
    told.shown(each for each in documents if each["netns"] == settings.netns)


def count(found: Found, seconds: float, others: Iterable[Path]) -> Counted:
    """Count for a while what runs in the paths ``found``; Ctrl-C or SIGTERM ends it early.

    :param others: all paths of the namespaces looked into, to tell what runs at several places.
    """
    from netbpf.bpf.stats import Measurement
    from netbpf.plumbing import path_stats

    paths = [path for _, path in found]
    elsewhere = path_stats.shared(others)
    with Measurement(path_stats.programs(paths)) as measurement:
        begin = time.monotonic()
        try:
            time.sleep(seconds)
        except KeyboardInterrupt:
            note("ended early")
        return Counted(measurement.runs(), elsewhere, time.monotonic() - begin)


class _View:
    """Turns paths into documents, with the pins and owners of all their links looked up once."""

    def __init__(self, reader: Reader, counted: Counted | None) -> None:
        self._reader = reader
        self._counted = counted
        self._pins: dict[int, list[str]] = {}
        self._owners: dict[int, list[Any]] = {}
        # When the machine started, by the clock as it is set now.
        self._boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def documents(self, listed: Found) -> list[Document]:
        links = [
            step.link_id
            for _, path in listed
            for each in (path, path.netkit)
            if each is not None
            for step in each.steps
            if step.link_id
        ]
        self._pins, self._owners = pins_of(links), _owners(links)
        return [self._chain(netns, path) for netns, path in listed]

    def _chain(self, netns: str | None, path: Path) -> Document:
        return {
            "netns": netns,
            "device": path.device,
            "ifindex": path.ifindex,
            "hook": path.hook,
            "revision": path.revision,
            "entries": [
                {
                    "position": step.position,
                    "prog": _prog(step.prog_id, step.facts),
                    "link": self._link(step.link_id) if step.link_id else None,
                    "load_time": self._load_time(step.facts),
                    "then": path.then(step.position),
                    "stats": self._stats(path, step.position, step.prog_id),
                }
                for step in path.steps
            ],
            "filters": [self._filter(path, *each) for each in enumerate(path.filters)],
            "netkit": None if path.netkit is None else self._chain(netns, path.netkit),
        }

    def _filter(self, path: Path, index: int, each: Filter) -> Document:
        facts = self._reader.facts(each.prog_id) if each.prog_id else None
        return {
            "kind": each.kind,
            "protocol": each.protocol_name,
            "priority": each.priority,
            "chain": each.chain,
            "handle": each.handle,
            "block": each.block,
            "name": each.name,
            "prog": _prog(each.prog_id, facts) if each.prog_id else None,
            "direct_action": each.direct_action,
            "load_time": self._load_time(facts),
            "then": path.after_filter(index),
            "stats": self._stats(path, len(path.steps) + index, each.prog_id),
        }

    def _link(self, number: int) -> Document:
        owners = [{"pid": owner.pid, "comm": owner.comm} for owner in self._owners[number]]
        return {"id": number, "pins": self._pins[number], "owners": owners}

    def _load_time(self, facts: Facts | None) -> str | None:
        if facts is None:
            return None
        loaded = time.gmtime(self._boot + facts.load_time / 1e9)
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", loaded)

    def _stats(self, path: Path, index: int, prog_id: int | None) -> Document | None:
        counted = self._counted
        if counted is None or prog_id is None or prog_id not in counted.runs:
            return None
        from netbpf.plumbing import path_stats

        runs = counted.runs[prog_id]
        ended = path_stats.ended(path, counted.runs, counted.elsewhere)
        return {"runs": runs.count, "ns_per_run": runs.ns_per_run, "ended": ended[index]}


def _prog(number: int, facts: Facts | None) -> Document:
    return {
        "id": number,
        "name": facts.name if facts else None,
        "tag": facts.tag if facts else None,
        "type": facts.type_name if facts else None,
    }


def pins_of(links: list[int]) -> dict[int, list[str]]:
    """Where each of these links is pinned."""
    if not links:
        return {}
    from netbpf.bpf.pin import link_pins

    return link_pins(links)


def _owners(links: list[int]) -> dict[int, list[Any]]:
    if not links:
        return {}
    from netbpf.bpf.owners import link_owners

    return link_owners(links)
