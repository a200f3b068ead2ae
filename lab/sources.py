"""The machine's apt configuration, read for one thing: where its Debian mirror is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CODENAMES = ("bookworm", "trixie", "forky", "duke", "sid", "stable", "testing", "unstable")


@dataclass(frozen=True)
class Mirror:
    """A place that carries Debian's main archive, with the key that signs it there."""

    uri: str
    suites: tuple[str, ...]
    signed_by: str | None
    """The value of Signed-By as it stands: paths, fingerprints or a key; None = apt's own keys."""

    def deb822(self, suites: Iterable[str]) -> str:
        """A source of packages from *suites* at this mirror, in deb822 style."""
        lines = [
            "Types: deb",
            f"URIs: {self.uri}",
            f"Suites: {' '.join(suites)}",
            "Components: main",
            "Targets: Packages",
        ]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        return "\n".join(lines) + "\n"


def machine_mirrors(etc: Path = Path("/etc/apt")) -> list[Mirror]:
    """The Debian mirrors of the machine, in the order of its configuration."""
    files = [etc / "sources.list"]
    files += sorted((etc / "sources.list.d").glob("*.list"))
    files += sorted((etc / "sources.list.d").glob("*.sources"))
    found: list[Mirror] = []
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        parse = parse_deb822 if file.suffix == ".sources" else parse_one_line
        found += [mirror for mirror in parse(text) if mirror not in found]
    return found


def parse_one_line(text: str) -> list[Mirror]:
    """The Debian mirrors of a sources.list in one-line style."""
    found: list[Mirror] = []
    for line in text.splitlines():
        words = re.fullmatch(
            r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<parts>.+)",
            line.split("#", 1)[0].strip(),
        )
        if words is None:
            continue
        options = dict(
            option.split("=", 1) for option in (words["options"] or "").split() if "=" in option
        )
        found += _debian(
            words["uri"].split(), [words["suite"]], words["parts"].split(), options.get("signed-by")
        )
    return found


def parse_deb822(text: str) -> list[Mirror]:
    """The Debian mirrors of a ``.sources`` file in deb822 style."""
    found: list[Mirror] = []
    for stanza in stanzas(text):
        if "deb" not in stanza.get("types", "").split():
            continue
        if stanza.get("enabled", "yes").lower() in {"no", "false", "0"}:
            continue
        found += _debian(
            stanza.get("uris", "").split(),
            stanza.get("suites", "").split(),
            stanza.get("components", "").split(),
            stanza.get("signed-by"),
        )
    return found


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file: field names in lower case, continuation lines kept."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line
        else:
            name, _, value = line.partition(":")
            name = name.lower()
            fields[name] = value.strip()


def _debian(
    uris: list[str], suites: list[str], components: list[str], signed_by: str | None
) -> Iterator[Mirror]:
    # Only the main archive carries backports and sid: a security or third-party source has other
    # suites, and another distribution's names are not in the list.
    debian = tuple(s for s in suites if s.split("-")[0] in CODENAMES and "security" not in s)
    if debian and "main" in components:
        for uri in uris:
            yield Mirror(uri.rstrip("/"), debian, signed_by)
