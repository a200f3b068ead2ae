"""``netbpf netns attach|detach|update``: programs at a namespace itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli.command import netns_names
from netbpf.cli.output import Document, emit, note, say
from netbpf.cli.program_options import Hold, Old, Pin, Variables
from netbpf.cli.settings import settings
from netbpf.errors import BpfError

if TYPE_CHECKING:
    from netbpf.bpf.chain import Entry
    from netbpf.bpf.prog import ProgramInfo
    from netbpf.netns import NetNS
    from netbpf.netns.hooks import LinksByPlace, NetnsHook

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A name, a path or pid:N.", autocompletion=netns_names),
]
HookName = Annotated[
    str,
    typer.Argument(
        metavar="flow_dissector|sk_lookup",
        help="Which of the namespace's hooks.",
        autocompletion=lambda incomplete: [
            hook for hook in ("flow_dissector", "sk_lookup") if hook.startswith(incomplete)
        ],
    ),
]
Prog = Annotated[
    str,
    typer.Argument(
        metavar="PROG", help="FILE.o, FILE.o:NAME, id:N, name:NAME, tag:HEX or pin:PATH."
    ),
]
RefArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF", help="What hangs there: id:N, name:NAME, tag:HEX, link:N or pin:PATH."
    ),
]


def attach(
    name: Name,
    hook: HookName,
    prog: Prog,
    link: Annotated[
        bool | None,
        typer.Option(
            "--link/--no-link", help="By a bpf_link (the default), or a flow dissector directly."
        ),
    ] = None,
    pin: Pin = None,
    hold: Hold = False,
    variables: Variables = None,
) -> None:
    """Attach a program to a namespace: its flow dissector, or one more sk_lookup, the last.

    Makes a bpf_link, pinned below /sys/fs/bpf/netbpf. It does not keep the namespace alive.
    """
    from netbpf import netns
    from netbpf.bpf.pin_name import name_for_netns
    from netbpf.cli import references
    from netbpf.cli.keep import Keeper
    from netbpf.netns import hooks, links

    place = hooks.hook_of(hook)
    keeper = Keeper.chosen(link, pin, hold, replacing=False)
    if not keeper.by_link and not place.direct:
        raise ValueError(f"--no-link: {hook} takes links only")
    with netns.NetNS.parse(name) as ns:
        if settings.dry_run:
            number, prog_name = references.check(prog, variables or [], place)
            keeper.prepare(mount=False)
            position = links.check_attach(ns, hook, number, link=keeper.by_link)
            document = _document(
                ns,
                hook,
                position,
                {"id": number, "name": prog_name},
                {"id": None, "pins": keeper.pins} if keeper.by_link else None,
            )
            emit(
                {"dry_run": True, "attached": document},
                lambda: say(f"would attach {prog_name} to {ns} {hook} {keeper.words}"),
            )
            return
        with references.program(prog, variables or [], place) as program:
            keeper.prepare()
            info = program.info()
            placed = links.attach(ns, hook, program, link=keeper.by_link)
            own_name = partial(name_for_netns, ns.inode, hook, info.name)
            with keeper.keep(placed.link, own_name) as pins:
                link_part = {"id": placed.link_id, "pins": pins} if placed.link_id else None
                document = _document(ns, hook, placed.position, _prog(info), link_part)
                emit({"attached": document}, lambda: _say_attached(document))
                keeper.wait()


def detach(name: Name, hook: HookName, ref: RefArgument) -> None:
    """Take one program away from a namespace.

    A link that owns it is detached, whoever else holds it, and netbpf's own pins of it are removed.
    """
    from netbpf import netns
    from netbpf.cli.chain import prog_document
    from netbpf.cli.keep import remove_pins
    from netbpf.netns import links

    with netns.NetNS.parse(name) as ns:
        entry = links.attached(ns, hook).find(ref)
        prog = prog_document(entry.prog_id)
        pins: list[str] = []
        if settings.dry_run:
            if entry.link_id:
                pins = remove_pins(entry.link_id, ref, dry_run=True)
        else:
            links.detach(
                ns,
                hook,
                f"link:{entry.link_id}" if entry.link_id else f"id:{entry.prog_id}",
                let_go=lambda number: pins.extend(remove_pins(number, ref)),
            )
        link = {"id": entry.link_id, "pins": pins} if entry.link_id else None
        document = {"detached": _document(ns, hook, entry.position, prog, link)}
        word = "would detach" if settings.dry_run else "detached"
        words = f"{ns} {hook}: {word} {prog['name'] or ''} (id:{prog['id']})"
        emit({**_dry(), **document}, lambda: say(words))


def update(
    name: Name,
    hook: HookName,
    ref: RefArgument,
    prog: Prog,
    old: Old = None,
    variables: Variables = None,
) -> None:
    """Exchange a program in its place, atomically: nothing goes unserved."""
    from netbpf import netns
    from netbpf.cli import references
    from netbpf.cli.chain_view import pins_of
    from netbpf.netns import hooks, links

    place = hooks.hook_of(hook)
    with netns.NetNS.parse(name) as ns:
        if settings.dry_run:
            number, prog_name = references.check(prog, variables or [], place)
            entry = links.check_update(ns, hook, ref, old=old)
            position: int | None = entry.position
            link_id, old_id = entry.link_id, entry.prog_id
            new: Document = {"id": number, "name": prog_name}
        else:
            with references.program(prog, variables or [], place) as program:
                placed = links.update(ns, hook, ref, program, old=old)
                new = _prog(program.info())
            position, link_id = placed.position, placed.link_id
            old_id = placed.old_prog_id or 0
        link = {"id": link_id, "pins": pins_of([link_id])[link_id]} if link_id else None
        document = _document(ns, hook, position, new, link) | {"old_prog": {"id": old_id}}
        words = (
            f"would put {new['name']} in the place of id:{old_id} at {ns} {hook}"
            if settings.dry_run
            else f"{ns} {hook}: {new['name']} (id:{new['id']}) in the place of id:{old_id}"
        )
        emit({**_dry(), "updated": document}, lambda: say(words))


class Reader:
    """Reads what hangs at one namespace after another, for ``netns show``."""

    def __init__(self) -> None:
        self._links: LinksByPlace | None = None
        self._refused = False
        self._told: list[Document] = []

    def documents(self, ns: NetNS) -> list[Document]:
        """The namespace's hooks, as cli.md has them; ``finish`` fills in who holds the links."""
        if self._refused:
            return []
        try:
            return [each for hook in self._hooks() for each in self._at(ns, hook)]
        except BpfError as error:
            self._refused = True
            note(f"links of namespaces are left out: {error}")
            return []

    def finish(self) -> None:
        """Look up pins and owners of all links at once."""
        from netbpf.bpf.owners import link_owners
        from netbpf.cli.chain_view import pins_of

        ids = [each["id"] for each in self._told]
        pins, owners = pins_of(ids), link_owners(ids)
        for each in self._told:
            each["pins"] = pins[each["id"]]
            each["owners"] = [{"pid": o.pid, "comm": o.comm} for o in owners[each["id"]]]

    def _hooks(self) -> list[NetnsHook]:
        from netbpf.netns import hooks

        return list(hooks.HOOKS.values())

    def _at(self, ns: NetNS, hook: NetnsHook) -> list[Document]:
        from netbpf.netns import hooks, link_refusal

        try:
            programs = hooks.program_ids(ns, hook)
        except OSError as error:
            raise link_refusal.of_query(hook, ns, error) from error
        if programs and self._links is None:
            self._links = hooks.links_by_place()
        found = hooks.matched(ns.inode, hook, programs, self._links or {})
        return [self._entry(hook.name, each) for each in found.entries]

    def _entry(self, hook: str, entry: Entry) -> Document:
        info = entry.program()
        link: Document | None = None
        if entry.link_id is not None:
            link = {"id": entry.link_id, "pins": [], "owners": []}
            self._told.append(link)
        return {
            "hook": hook,
            "prog": {
                "id": entry.prog_id,
                "name": info.name if info else None,
                "tag": info.tag if info else None,
                "type": info.type_name if info else None,
            },
            "link": link,
        }


def words(document: Document) -> list[str]:
    """What hangs at a namespace, a phrase each, from its document."""
    return [
        f"{each['hook']}: {each['prog']['name'] or ''} (id:{each['prog']['id']})"
        + (f" by link:{each['link']['id']}" if each["link"] else "")
        for each in document["links"]
    ]


def _document(
    ns: NetNS, hook: str, position: int | None, prog: Document, link: Document | None
) -> Document:
    return {
        "netns": str(ns),
        "inode": ns.inode,
        "hook": hook,
        "position": position,
        "prog": prog,
        "link": link,
    }


def _prog(info: ProgramInfo) -> Document:
    return {"id": info.id, "name": info.name}


def _dry() -> Document:
    return {"dry_run": True} if settings.dry_run else {}


def _say_attached(document: Document) -> None:
    prog, link = document["prog"], document["link"]
    how = f" by link:{link['id']}" if link else " directly"
    say(
        f"{document['netns']} {document['hook']}: {prog['name']} (id:{prog['id']}) "
        f"at position {document['position']}{how}"
    )
    for path in link["pins"] if link else ():
        say(f"pinned at {path}")
