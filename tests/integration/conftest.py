"""Integration tests change namespaces and load programs: they need root, and say so."""

import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() != 0 and any("integration" in item.path.parts for item in items):
        raise pytest.UsageError("tests/integration needs root: run it as root, or in lab/run")
    # 1/2 or 2/2: scripts/test shares the tests out; neighbours are alike, so they are kept apart.
    if shard := os.environ.get("NETBPF_TEST_SHARD"):
        number, count = map(int, shard.split("/"))
        config.hook.pytest_deselected(
            items=[item for index, item in enumerate(items) if index % count != number - 1]
        )
        items[:] = items[number - 1 :: count]
