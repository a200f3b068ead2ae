"""Debian packages from the machine's mirror, through apt with a state folder of our own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.arch import Arch
from lab.cache import lock_path, locked
from lab.errors import LabError, NoMirrorError
from lab.process import run_tool
from lab.sources import Mirror, machine_mirrors, stanzas

# -c is read after the machine's own configuration, so its proxy and credentials stay in force
# while no hook of it runs and nothing of apt's own folders is written.
_CONFIG = """\
Dir::Etc::SourceList "{state}/mirror.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "{state}/lists";
Dir::State::Extended_States "{state}/extended_states";
Dir::State::Status "{status}";
Dir::Cache "{state}/cache";
Dir::Log "{state}/log";
APT::Architecture "{arch}";
#clear APT::Architectures;
APT::Architectures {{ "{arch}"; }};
#clear APT::Update;
#clear DPkg;
#clear APT::Default-Release;
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
"""

OFFLINE = (
    "without a mirror: put the .deb files into a folder and pass --debs FOLDER, "
    "or pass your own kernel image with --kernel PATH (see docs/lab.md)"
)


class Apt:
    """One set of suites at one mirror: its own lists and cache, nothing of the system's.

    :param host: resolve dependencies against what is installed here, instead of nothing.
    """

    def __init__(self, state: Path, arch: Arch, suites: Sequence[str], *, host: bool = False):
        self.suites = tuple(suites)
        self._state = state
        self._arch = arch
        self._status = Path("/var/lib/dpkg/status") if host else Path("/dev/null")
        self._config = state / "apt.conf"

    def update(self) -> None:
        """Fetch the lists, from the first of the machine's mirrors that has the suites.

        :raises NoMirrorError: the machine names no Debian mirror, or none of them answered.
        """
        mirrors = machine_mirrors()
        if not mirrors:
            raise NoMirrorError(
                f"the machine's apt configuration names no Debian mirror; {OFFLINE}"
            )
        (self._state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (self._state / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        (self._state / "log").mkdir(exist_ok=True)
        self._config.write_text(
            _CONFIG.format(state=self._state, status=self._status, arch=self._arch.debian)
        )
        failures = []
        for mirror in mirrors:
            try:
                return self._update_from(mirror)
            except LabError as e:
                failures.append(str(e))
        raise NoMirrorError("\n".join([*failures, OFFLINE]))

    def _update_from(self, mirror: Mirror) -> None:
        (self._state / "mirror.sources").write_text(mirror.deb822(self.suites))
        self._run(
            "apt-get", "-o", "APT::Update::Error-Mode=any", "update",
            doing=f"read the package lists of {', '.join(self.suites)}",
        )  # fmt: skip

    def names(self, pattern: str) -> list[str]:
        """The names of packages that match the extended regular expression *pattern*."""
        out = self._run("apt-cache", "pkgnames", doing="list packages")
        matches = re.compile(pattern).fullmatch
        return sorted(name for name in out.split() if matches(name))

    def versions(self, name: str) -> dict[str, str]:
        """The versions of one package, as a map of version to its Depends field."""
        if not self.names(re.escape(name)):
            return {}
        out = self._run("apt-cache", "show", name, doing=f"look up {name}")
        return {
            stanza["version"]: stanza.get("depends", "")
            for stanza in stanzas(out)
            if stanza.get("package") == name
        }

    def download(self, packages: Iterable[str], into: Path) -> list[Path]:
        """Download packages (``name`` or ``name=version``) without their dependencies."""
        into.mkdir(parents=True, exist_ok=True)
        wanted = list(packages)
        self._run("apt-get", "download", *wanted, doing=f"download {' '.join(wanted)}", cwd=into)
        return sorted(into.glob("*.deb"))

    def download_with_missing(self, package: str, suite: str | None, into: Path) -> list[Path]:
        """Download a package and those of its dependencies that this machine has not installed."""
        into.mkdir(parents=True, exist_ok=True)
        archives = into.resolve()
        (archives / "partial").mkdir(exist_ok=True)
        release = ["-t", suite] if suite else []
        self._run(
            "apt-get", "install", "--download-only", "--reinstall", "--yes", *release,
            "-o", f"Dir::Cache::Archives={archives}", "-o", "Debug::NoLocking=true", package,
            doing=f"download {package}",
        )  # fmt: skip
        return sorted(into.glob("*.deb"))

    def _run(self, tool: str, *words: str, doing: str, cwd: Path | None = None) -> str:
        # apt would fail, not wait, where another lab uses the same lists.
        with locked(lock_path(self._state)):
            return run_tool([tool, "-c", self._config, "-q", *words], doing=doing, cwd=cwd)


def deb_field(deb: Path, field: str) -> str:
    """One field of a package file's control data."""
    return run_tool(["dpkg-deb", "-f", deb, field], doing=f"read {deb.name}").strip()


def unpack(debs: Iterable[Path], into: Path) -> None:
    """Unpack packages into a folder; nothing of them is run or installed."""
    into.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        run_tool(["dpkg-deb", "-x", deb, into], doing=f"unpack {deb.name}")
