"""The public surface: small, sorted, and there."""

from __future__ import annotations

import importlib
import inspect

import pytest

import netbpf


def test_all_is_sorted_and_complete() -> None:
    assert list(netbpf.__all__) == sorted(netbpf.__all__, key=lambda n: (n[0].islower(), n))
    for name in netbpf.__all__:
        assert getattr(netbpf, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        netbpf.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "room",
    [
        "netbpf.tcx",
        "netbpf.netkit",
        "netbpf.netns",
        "netbpf.loader",
        "netbpf.captures",
        "netbpf.skeleton",
    ],
)
def test_public_functions_are_documented_and_typed(room: str) -> None:
    module = importlib.import_module(room)
    for name in module.__all__:
        thing = getattr(module, name)
        if callable(thing):
            assert inspect.getdoc(thing), f"{room}.{name} has no docstring"
        if inspect.isfunction(thing):
            assert "return" in thing.__annotations__, f"{room}.{name} is not typed"
