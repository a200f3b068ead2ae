"""Where packets ended: what the runs of programs tell of the paths that they are in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from netbpf.bpf.link import Link
from netbpf.bpf.stats import Runs
from netbpf.errors import NotFoundError
from netbpf.netlink.filters import ETH_P_ALL, Filter
from netbpf.plumbing.packet_path import Path


def programs(paths: Iterable[Path]) -> list[int]:
    """The ids of all programs in these paths, the netkit sides' included."""
    found: dict[int, None] = {}
    for path in paths:
        found.update(dict.fromkeys(step.prog_id for step in path.steps))
        found.update(dict.fromkeys(each.prog_id for each in path.filters if each.prog_id))
        if path.netkit is not None:
            found.update(dict.fromkeys(programs([path.netkit])))
    return list(found)


def shared(paths: Iterable[Path]) -> set[int]:
    """The programs that run at more than one place: their counts are those of all places.

    Known are the places of ``paths``, each given once, and all links of the machine; a program that
    is attached by itself in a namespace that was not looked into is not seen. Needs CAP_SYS_ADMIN.
    """
    places = Counter(_links())
    for path in paths:
        for each in (path, path.netkit):
            if each is not None:
                places.update(step.prog_id for step in each.steps if step.link_id is None)
                places.update(found.prog_id for found in each.filters if found.prog_id)
    return {number for number, count in places.items() if count > 1}


def _links() -> list[int]:
    found = []
    for number in Link.ids():
        try:
            with Link.from_id(number) as link:
                info = link.info()
        except NotFoundError:
            continue
        if not info.defunct:
            found.append(info.prog_id)
    return found


def ended(path: Path, runs: Mapping[int, Runs], elsewhere: set[int]) -> list[int | None]:
    """For each entry, then for each filter: its runs minus the runs of what is next.

    These are the packets after which nothing later ran. At the last place it is all of its runs:
    there every packet leaves, by a verdict or by NEXT, which the kernel does not count apart. None
    where the counts do not tell: a program runs at other places too, or the next one is a filter
    that does not see every packet. Nothing is corrected: a number can be off by what came while the
    programs were read, and below 0 by that.

    :param elsewhere: programs that run at several places (`shared`).
    """
    told: list[Runs | None] = [
        runs.get(number) if number is not None and number not in elsewhere else None
        for number in _stations(path)
    ]
    found: list[int | None] = []
    for index, this in enumerate(told):
        if this is None:
            found.append(None)
        elif index + 1 == len(told):
            found.append(this.count)
        else:
            following = told[index + 1]
            found.append(None if following is None else this.count - following.count)
    return found


def _stations(path: Path) -> list[int | None]:
    found: list[int | None] = [step.prog_id for step in path.steps]
    return found + [each.prog_id if _sees_all(each) else None for each in path.filters]


def _sees_all(which: Filter) -> bool:
    """Whether every packet that gets here runs the filter, and only those of this device do."""
    plain = which.protocol == ETH_P_ALL and which.chain == 0 and which.block is None
    return plain and not which.foreign and not which.skip_sw
