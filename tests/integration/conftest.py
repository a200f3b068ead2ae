"""Integration tests change namespaces and load programs: they need root, and say so."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_nic: for the NIC that NETBPF_TEST_NIC names")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() != 0 and any("integration" in item.path.parts for item in items):
        raise pytest.UsageError("tests/integration needs root: run it as root, or in lab/run")
    # Hardware is a part of a run only where somebody names some (docs/hardware.md).
    if "NETBPF_TEST_NIC" not in os.environ:
        _keep(config, items, [item for item in items if not item.get_closest_marker("real_nic")])
    # A guest's processor is emulated: what another run takes part in anyway is only sampled there.
    if (there := os.environ.get("NETBPF_TEST_THERE")) is not None:
        elsewhere = set(there.split(","))
        sample = [item for item in items if _needs(item) <= elsewhere][::10]
        _keep(config, items, [i for i in items if i in sample or not _needs(i) <= elsewhere])
    # As 1,2/5: scripts/test shares the tests out; neighbours are alike, so they are kept apart.
    if shard := os.environ.get("NETBPF_TEST_SHARD"):
        numbers, _, count = shard.partition("/")
        ours = {int(number) % int(count) for number in numbers.split(",")}
        _keep(config, items, [item for i, item in enumerate(items) if i % int(count) in ours])


def _needs(item: pytest.Item) -> set[str]:
    """The features of the kernel that a test is marked with."""
    return {feature for mark in item.iter_markers("needs") for feature in mark.args}


def _keep(config: pytest.Config, items: list[pytest.Item], kept: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=list(set(items) - set(kept)))
    items[:] = kept
