"""Objects of our own and of Debian's packages: what libbpf makes of them, netbpf makes of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.netns_fixtures import packages, probes
from tests.netns_fixtures.libbpf_core import version
from tests.netns_fixtures.libbpf_load import by_libbpf, by_netbpf, compared, differences
from tests.netns_fixtures.objects import build, newest

SOURCES = Path(__file__).resolve().parents[1] / "corpus"
LINKED = ("linked_a", "linked_b")
# These load where the kernel tells the addresses of its data, and its configuration.
EITHER = ("variables", "config")
NEEDS = {
    "trampolines": ["fentry"],
    "decides": ["lsm", "fmod_ret"],
    "libbpf-tools/biosnoop": ["fentry"],
    "libbpf-tools/klockstat": ["fentry"],
    "libbpf-tools/tcpconnlat": ["fentry"],
    "libbpf-tools/vfsstat": ["fentry"],
}
# What netbpf refuses as yet, and a word of why. What it does not any more fails the test.
NOT_YET: dict[str, str] = {}
# Its casts between address spaces: clang 19, and no instruction set but the last.
ARENA = "arena"


class Known(NamedTuple):
    """Where the two differ and why: ``words`` of which objects, and whether it is so here."""

    objects: str
    words: str
    why: str
    here: Callable[[], bool | None]


def older(than: tuple[int, int]) -> Callable[[], bool | None]:
    """So with the libbpf of Debian 12, gone at ``than``; what lies between has not been seen."""

    def ask() -> bool | None:
        if version() >= than:
            return False
        return True if version() <= (1, 1) else None

    return ask


def no_kprobes() -> bool:
    return not probes.has("kprobe")


KNOWN = (
    Known("chains-*", "outcome", "libbpf knows tcx since 1.3, netkit since then", older((1, 8))),
    Known("newer-*", "outcome", "sections that libbpf has since 1.2 and later", older((1, 8))),
    Known("newer_struct_ops-*", "outcome", "libbpf makes such links since 1.2", older((1, 8))),
    Known("exceptions-*", "outcome", "libbpf knows exceptions since 1.3", older((1, 8))),
    Known("arena-*", "outcome", "libbpf knows arenas since 1.5", older((1, 8))),
    Known(
        "externs-*",
        "program functions prog_tag",
        "libbpf calls a weak function that is not there by another number since 1.2",
        older((1, 8)),
    ),
    Known(
        "virtual-*",
        "map virtual.kconfig contents",
        "libbpf asks for LINUX_HAS_SYSCALL_WRAPPER by a kprobe, netbpf by the kernel's symbols",
        no_kprobes,
    ),
    Known(
        "virtual-*",
        "program reads *",
        "dead code by the value of LINUX_HAS_SYSCALL_WRAPPER",
        no_kprobes,
    ),
)
"""All differences. One that is gone fails the test: then its line has to go."""


def check(name: str, path: Path) -> tuple[str | None, str | None]:
    """Hold netbpf against libbpf, but for what is known; what each of them refuses it for."""
    ours, theirs, found = compared(path)
    known = [k for k in KNOWN if fnmatchcase(name, k.objects) and k.here() is not False]
    news = {
        words: pair
        for words, pair in found.items()
        if not any(fnmatchcase(words, k.words) for k in known)
    }
    assert not news, "netbpf, libbpf"
    gone = [
        k.why for k in known if k.here() and not any(fnmatchcase(words, k.words) for words in found)
    ]
    assert not gone, "differs no longer"
    return ours.refused, theirs.refused


def compile_one(name: str, cpu: str) -> Path:
    compiler = newest()[0] if cpu == "v4" else "clang"
    text = (SOURCES / f"{name}.c").read_text()
    return build(text, "-Wall", "-Werror", f"-mcpu={cpu}", name=name, head="", compiler=compiler)


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.needs(*NEEDS[name])] if name in NEEDS else []


def own() -> list[object]:
    # Clang 18 and later know the last instruction set; not every machine has one.
    cpus = ["v1", "v2", "v3", *(["v4"] if newest()[1] >= 18 else [])]
    found: list[object] = []
    for source in sorted(SOURCES.glob("*.c")):
        for cpu in cpus:
            name = source.stem
            if name in LINKED or (name == ARENA and (cpu != "v4" or newest()[1] < 19)):
                continue
            found.append(pytest.param(name, cpu, marks=marks(name), id=f"{name}-{cpu}"))
    return [*found, *(pytest.param("linked", cpu, id=f"linked-{cpu}") for cpu in cpus)]


@pytest.mark.parametrize(("name", "cpu"), own())
def test_own_objects(name: str, cpu: str, tmp_path: Path) -> None:
    if name == "linked":
        path = tmp_path / "linked.o"
        halves = [compile_one(half, cpu) for half in LINKED]
        subprocess.run(["bpftool", "gen", "object", path, *halves], check=True)
    else:
        path = compile_one(name, cpu)
    if name in NOT_YET:
        assert NOT_YET[name] in (by_netbpf(path).refused or ""), "take it out of NOT_YET"
        return
    ours, _ = check(f"{name}-{cpu}", path)
    # What both refuse proves little: only what is here for that may be refused.
    assert name in EITHER or (ours is not None) == name.startswith("refused_"), ours


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=marks(each)) for each in packages.objects()]
)
def test_objects_of_packages(name: str) -> None:
    check(name, packages.objects()[name])


def test_what_differs_is_seen() -> None:
    text = (SOURCES / "globals.c").read_text()
    changed = text.replace(
        'own_static SEC(".data.static") = 7', 'own_static SEC(".data.static") = 9'
    )
    paths = [build(each, name="globals", head="") for each in (text, changed)]
    found = differences(by_netbpf(paths[0]), by_libbpf(paths[1]))
    assert list(found) == ["map .data.static contents"]
    ours, theirs = (by_netbpf(compile_one(name, "v3")) for name in ("inner", "subprogs"))
    assert {"programs", "maps"} <= differences(ours, theirs).keys()


def test_packages_are_there() -> None:
    found = {name.split("/")[0] for name in packages.objects()}
    assert found >= set(packages.PACKAGES), "scripts/setup fetches them"
