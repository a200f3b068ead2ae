"""The lines of a verifier log that say what was wrong, and what to do about it."""

from __future__ import annotations

import re

# "; source text @ file.c:12" and, before Linux 6.9, "; source text" alone (kernel/bpf/log.c).
_SOURCE = re.compile(r"^; .*")
_INSTRUCTION = re.compile(r"^\d+: \([0-9a-f]{2}\) ")
_STATE = re.compile(
    r"^(\d+: )?(R\d+(_[rw]+)?=|frame\d+: |caller:|callee:|from \d+ to \d+|last_idx |regs=|parent "
    r"|(cur|old) state: )"
)
_SUMMARY = re.compile(
    r"^(processed \d+ insns|verification time|stack depth|mark_precise|Validating |func#\d+)"
    # Of the functions that are verified apart (kernel/bpf/verifier.c: check_func_call).
    r"|^Func#\d+ \('[^']*'\) is (global and assumed valid|safe for any args)"
)
# A report that newer kernels put behind it (seen on Linux 7.3) tells the same at length.
_REPORT = re.compile(r"^Verification failed: (.*)", re.MULTILINE)
_SUGGESTION = re.compile(r"^Suggestion:\n((?: +\S.*\n?)+)", re.MULTILINE)


def excerpt(log: str, lines: int = 4) -> str:
    """The verifier's own words at the end of ``log``, then the source line they speak of.

    Instructions and registers are left out; a log without any words gives its last line.
    """
    words: list[str] = []
    source = ""
    if report := _REPORT.search(log):
        log = log[: report.start()] if log[: report.start()].strip() else report[1]
    for line in reversed(log.splitlines()):
        text = line.strip()
        if not text or any(p.match(text) for p in (_SUMMARY, _STATE, _INSTRUCTION)):
            continue
        if _SOURCE.match(text):
            source = text[2:]
            break
        if len(words) < lines:
            words.append(text)
    if not words:
        return log.splitlines()[-1].strip() if log else ""
    said = "; ".join(reversed(words))
    return f"{said} (at {source})" if source else said


def suggestion(log: str) -> str | None:
    """What the kernel suggests to do, None where its log has nothing of the kind."""
    found = _SUGGESTION.search(log)
    return " ".join(found[1].split()).rstrip(".") if found else None
