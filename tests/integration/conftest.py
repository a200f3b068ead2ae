"""Integration tests change namespaces and load programs: they need root, and say so."""

import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() != 0 and any("integration" in item.path.parts for item in items):
        raise pytest.UsageError("tests/integration needs root: run it as root, or in lab/run")
    # As 1,2/5: scripts/test shares the tests out; neighbours are alike, so they are kept apart.
    if shard := os.environ.get("NETBPF_TEST_SHARD"):
        numbers, _, count = shard.partition("/")
        ours = {int(number) % int(count) for number in numbers.split(",")}
        kept = [item for index, item in enumerate(items) if index % int(count) in ours]
        away = [item for index, item in enumerate(items) if index % int(count) not in ours]
        config.hook.pytest_deselected(items=away)
        items[:] = kept
