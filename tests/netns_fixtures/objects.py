"""BPF objects compiled from C, kept between runs: clang takes seconds in an emulated guest."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

HEAD = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"


@functools.cache
def _compiler(name: str) -> tuple[str, str]:
    clang = shutil.which(name)
    assert clang is not None, f"the tests need {name}"
    version = subprocess.run([clang, "--version"], check=True, capture_output=True, text=True)
    return clang, version.stdout


@functools.cache
def newest() -> tuple[str, int]:
    """The newest of the installed compilers and its release: ``clang``, or a ``clang-19``."""
    found = [("clang", _release("clang"))]
    found += [(name, int(name[6:])) for n in range(15, 40) if shutil.which(name := f"clang-{n}")]
    return max(found, key=lambda each: each[1])


def _release(name: str) -> int:
    said = re.search(r"version (\d+)", _compiler(name)[1])
    assert said is not None
    return int(said[1])


def build(
    source: str, *flags: str, name: str = "made", head: str = HEAD, compiler: str = "clang"
) -> Path:
    """The object file ``name.o`` of a C source, out of the cache where it has been compiled before.

    The guest of lab/run sees what was compiled outside of it.
    """
    clang, version = _compiler(compiler)
    text = head + source
    # Debian keeps asm/ in the multiarch folder, which a bpf target does not look into.
    includes = [f"-I{path}" for path in sorted(Path("/usr/include").glob("*-linux-gnu"))]
    command = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", *includes, *flags]
    key = hashlib.sha256("\0".join([text, version, *command]).encode()).hexdigest()[:32]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "netbpf" / "test-objects" / key
    output = folder / f"{name}.o"
    if output.exists():
        return output
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.c"
    file.write_text(text)
    part = folder / f"{name}.{os.getpid()}.part"
    subprocess.run([clang, *command, "-c", file, "-o", part], check=True)
    part.rename(output)
    return output
