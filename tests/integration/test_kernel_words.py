"""The kernel's own words in a refusal: of programs, and of maps where it has any."""

from __future__ import annotations

import pytest

from netbpf import loader
from netbpf.bpf import map as bpf_map
from netbpf.bpf import prog, uapi
from netbpf.bpf.map import Map
from netbpf.errors import BpfError, VerifierError
from tests.netns_fixtures.cli import netbpf
from tests.netns_fixtures.objects import build

WRONG = """
int values[4];
SEC("tc") int wrong(struct __sk_buff *skb)
{
	values[skb->len & 3] = 1;
	return *(int *)(long)skb->data;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.mark.needs("common-attrs")
def test_a_map_is_refused_in_the_kernels_words() -> None:
    before = set(Map.ids())
    with pytest.raises(BpfError, match=r"create map made: Invalid map_type\. \(EINVAL\)"):
        bpf_map.create(999, key_size=4, value_size=4, max_entries=1, name="made")
    with pytest.raises(BpfError, match=r"create map made: Invalid btf_fd\."):
        bpf_map.create(
            uapi.BPF_MAP_TYPE_ARRAY,
            key_size=4,
            value_size=4,
            max_entries=1,
            name="made",
            btf_value_type_id=1,
        )
    assert not set(Map.ids()) - before


def test_without_words_the_reason_is_ours() -> None:
    with pytest.raises(BpfError, match="a map of type array cannot have key size 3"):
        bpf_map.create(uapi.BPF_MAP_TYPE_ARRAY, key_size=3, value_size=4, max_entries=1)


def test_the_line_of_the_source_and_no_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prog, "_LOG_FIRST", 128)
    file = build(WRONG, name="wrong")
    with loader.open(file) as obj, pytest.raises(VerifierError) as caught:
        obj.load()
    assert len(caught.value.log) > 128, "longer than the first buffer"
    said = str(caught.value)
    assert "invalid access to packet" in said
    assert "return *(int *)(long)skb->data;" in said
    assert "wrong.c:8" in said
    assert "R1=" not in said
    short = netbpf("prog", "load", file)
    assert short.status == 1
    assert "R1=" not in short.err
    whole = netbpf("prog", "load", file, "-v")
    assert "R1=" in whole.err and "wrong.c:8" in whole.err
