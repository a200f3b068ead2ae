"""The fixtures' own promises: leaks are seen, skips have to prove themselves."""

from __future__ import annotations

import os

import pytest

from tests.netns_fixtures import probes
from tests.netns_fixtures.descriptors import none_leaked


def test_a_leaked_descriptor_fails():
    with pytest.raises(AssertionError, match=r"leaked descriptors: .*/dev/null"), none_leaked():
        leaked = os.open("/dev/null", os.O_RDONLY)
    os.close(leaked)


def test_a_closed_one_does_not():
    with none_leaked():
        os.close(os.open("/dev/null", os.O_RDONLY))


@pytest.mark.parametrize(
    ("answer", "lab", "release", "skipped"),
    [
        (True, False, "6.18.0", False),
        (None, False, "6.18.0", False),
        (False, False, "6.18.0", True),
        (False, True, "7.2.1+deb13", False),
        (False, True, "6.12.0", True),
        (None, True, "6.12.0", False),
    ],
)
def test_only_a_conclusive_probe_excuses(monkeypatch, answer, lab, release, skipped):
    """And none at all in the lab, on a kernel that is new enough."""
    monkeypatch.setattr(probes, "has", lambda feature: answer)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "x", release, "", "")))
    if lab:
        monkeypatch.setenv("NETBPF_LAB", release)
    else:
        monkeypatch.delenv("NETBPF_LAB", raising=False)
    excuse = probes.excuse("netkit-single")
    assert (excuse is not None) == skipped
    if excuse:
        assert release in excuse and "7.1" in excuse


def test_an_unknown_need_is_an_error():
    with pytest.raises(ValueError, match="no probe for netkti"):
        probes.has("netkti")
