"""clsact and its filters, made and read by iproute2's tc: the second witness of the kernel's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netbpf.bpf.prog import Program
from netbpf.netns import entered
from netbpf.tcx import migrate
from netbpf.tcx.migrate import Migration
from tests.netns_fixtures import namespaces
from tests.netns_fixtures.hooks import Site


@dataclass(frozen=True)
class Clsact:
    """The clsact of a site's device, at the site's hook."""

    site: Site
    folder: Path

    def tc(self, *words: object, check: bool = True) -> str:
        """Run ``tc WORDS…`` in the device's namespace; what it wrote."""
        argv = ["tc", *map(str, words)]
        done = namespaces.run(self.site.ns, argv, check=check)
        return done.stdout + done.stderr

    def qdisc(self, kind: str = "clsact", *before: object) -> None:
        """Add one; ``before`` is what stands before its name, ``ingress_block 7``."""
        self.tc("qdisc", "add", "dev", self.site.device, *before, kind)

    def qdiscs(self) -> Any:
        """The device's qdiscs as tc shows them."""
        return json.loads(self.tc("-j", "qdisc", "show", "dev", self.site.device))

    def add(
        self,
        prog: Program,
        *options: object,
        pref: int = 10,
        handle: int | None = None,
        protocol: str = "all",
        direct: bool = True,
        before: tuple[object, ...] = (),
    ) -> None:
        """A cls_bpf filter of this program; ``options`` follow those of bpf."""
        pin = self.folder / f"p{prog.id}"
        if not pin.exists():
            prog.pin(str(pin))
        handles = [] if handle is None else ["handle", handle]
        words: list[object] = ["protocol", protocol, "pref", pref, *handles, *before]
        self.filter("add", *words, "bpf", *(["da"] if direct else []), "pinned", pin, *options)

    def filter(self, verb: str, *words: object) -> str:
        """``tc filter VERB`` at the site's hook."""
        return self.tc("filter", verb, "dev", self.site.device, self.site.hook, *words)

    def shown(self) -> list[dict[str, Any]]:
        """The filters at the hook as tc lists them, without the lines that open a priority.

        Options of cls_bpf are flattened into the filter.
        """
        site = self.site
        found = json.loads(self.tc("-j", "filter", "show", "dev", site.device, site.hook))
        return [
            {**{k: v for k, v in each.items() if k != "options"}, **each["options"]}
            for each in found
            if "options" in each
        ]

    def ids(self) -> list[int]:
        """The ids of the programs of cls_bpf filters, as tc lists them."""
        return [each["prog"]["id"] for each in self.shown() if each["kind"] == "bpf"]

    def u32(self, pref: int) -> None:
        """A filter of another kind than cls_bpf, which matches no packet of a test."""
        words = ["protocol", "ip", "pref", pref, "u32", "match", "ip", "dst", "192.0.2.9/32"]
        self.filter("add", *words, "classid", "1:1")

    def migrate(self, *, back: bool = False) -> Migration:
        """Migrate what is at the hook."""
        with entered(self.site.ns):
            act = migrate.back if back else migrate.migrate
            (done,) = act(self.site.ifindex, (self.site.hook,))
        return done

    def planned(self, *, back: bool = False) -> Migration:
        """What `migrate` would do."""
        with entered(self.site.ns):
            (found,) = migrate.plan(self.site.ifindex, (self.site.hook,), back=back)
        return found


@contextmanager
def clsact(site: Site, bpffs: Path, *, qdisc: bool = True) -> Iterator[Clsact]:
    """A clsact on the site's device, which goes with the device."""
    made = Clsact(site, bpffs)
    if qdisc:
        made.qdisc()
    yield made
