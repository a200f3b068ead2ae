"""Integration tests change namespaces and load programs: they need root, and say so."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0 and any("integration" in item.path.parts for item in items):
        raise pytest.UsageError("tests/integration needs root: run it as root, or in lab/run")
