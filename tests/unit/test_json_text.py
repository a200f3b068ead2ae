"""JSON without ``json``: the same text, whatever stands in a document."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netbpf.cli import json_text

LEAVES = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.fixture(scope="module", autouse=True)
def without_json() -> Any:
    """As in a process that has not imported it; whoever imports it gets it all the same."""
    kept = sys.modules.pop("json")
    yield
    sys.modules["json"] = kept


@given(DOCUMENTS)
def test_it_is_what_json_writes(document: Any) -> None:
    sys.modules.pop("json", None)
    assert json_text.dumps(document) == json.dumps(document)


@pytest.mark.parametrize(
    "value", ["", "eth0", 'a"b', "a\\b", "é", "\n", "\x7f", "\ud800", 2**64, -1, {1: 2}, {"é": ()}]
)
def test_words_and_numbers(value: Any) -> None:
    sys.modules.pop("json", None)
    assert json_text.dumps([value]) == json.dumps([value])


def test_bytes() -> None:
    sys.modules.pop("json", None)
    assert json_text.dumps({"tag": b"\x01\xff", "more": bytearray(2)}) == (
        '{"tag": "01ff", "more": "0000"}'
    )


def test_plain_documents_need_no_json() -> None:
    code = (
        "import sys; from netbpf.cli.json_text import dumps\n"
        "print(dumps({'chains': [{'ifindex': 1, 'link': None, 'up': True, 'device': 'eth0'}]}))\n"
        "print('json' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    document, imported = done.stdout.splitlines()
    assert json.loads(document)["chains"][0]["device"] == "eth0"
    assert imported == "False"
