"""What is told of a verifier log."""

from __future__ import annotations

from netbpf.bpf.verifier_log import excerpt

LOG = """\
0: R1=ctx() R10=fp0
; return *(int *)(long)skb->len; @ bad.c:12
0: (61) r1 = *(u32 *)(r1 +0)          ; R1_w=scalar(smin=0,smax=umax=0xffffffff)
1: (67) r1 <<= 32
3: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'scalar'
processed 4 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_words_and_source_line() -> None:
    assert excerpt(LOG) == (
        "R1 invalid mem access 'scalar' (at return *(int *)(long)skb->len; @ bad.c:12)"
    )


def test_log_without_source() -> None:
    assert excerpt("0: (95) exit\nR0 !read_ok\nprocessed 1 insns (limit 1000000)") == "R0 !read_ok"


def test_log_without_words() -> None:
    assert excerpt("processed 1 insns (limit 1000000)") == "processed 1 insns (limit 1000000)"
    assert excerpt("") == ""
