"""What is told of a verifier log."""

from __future__ import annotations

from netbpf.bpf.verifier_log import excerpt, suggestion

LOG = """\
0: R1=ctx() R10=fp0
; return *(int *)(long)skb->len; @ bad.c:12
0: (61) r1 = *(u32 *)(r1 +0)          ; R1_w=scalar(smin=0,smax=umax=0xffffffff)
1: (67) r1 <<= 32
3: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'scalar'
processed 4 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
# As Linux 7.3 says it.
REPORT = """\

Verification failed: Memory Safety: Access outside bounds

Reason:
  The verifier cannot prove offset + access_size <= object_size.

At:
  bad @ bad.c:12:9
  Source context:
  >>> 12 | return *(int *)(long)skb->len;
         | ^-- error: access may be outside object bounds
  Instruction context:
  >>>  3 | (61) r0 = *(u32 *)(r1 +0)
       4 | (95) exit

Suggestion:
  Add or adjust a bounds check that proves offset + access_size
  stays within the object.

"""


def test_the_report_of_newer_kernels_is_left_to_the_whole_log() -> None:
    *told, summary = LOG.splitlines(keepends=True)
    log = "".join(told) + REPORT + summary
    assert excerpt(log) == excerpt(LOG)
    assert suggestion(log) == (
        "Add or adjust a bounds check that proves offset + access_size stays within the object"
    )
    assert suggestion(LOG) is None
    assert excerpt(REPORT + summary) == "Memory Safety: Access outside bounds"
    assert suggestion("Suggestion:\n") is None


def test_words_and_source_line() -> None:
    assert excerpt(LOG) == (
        "R1 invalid mem access 'scalar' (at return *(int *)(long)skb->len; @ bad.c:12)"
    )


def test_states_are_registers_too() -> None:
    log = """\
; while (i < 10) i = skb->len; @ bad.c:6
7: (c6) if w2 s< 0xa goto pc-3
infinite loop detected at insn 7
cur state: R1=scalar(smin=0,smax=umax=0xffffffff) R10=fp0 fp-8=mmmm????
old state: R1=scalar(smin=0,smax=umax=0xffffffff) R10=fp0 fp-8=mmmm????
processed 21 insns (limit 1000000) max_states_per_insn 0 total_states 2 peak_states 2 mark_read 0
"""
    assert excerpt(log) == (
        "infinite loop detected at insn 7 (at while (i < 10) i = skb->len; @ bad.c:6)"
    )


def test_log_without_source() -> None:
    assert excerpt("0: (95) exit\nR0 !read_ok\nprocessed 1 insns (limit 1000000)") == "R0 !read_ok"


def test_log_without_words() -> None:
    assert excerpt("processed 1 insns (limit 1000000)") == "processed 1 insns (limit 1000000)"
    assert excerpt("") == ""


def test_functions_that_are_well_are_no_words() -> None:
    log = """\
; return of(1) + other(&here); @ bad.c:6
Func#1 ('of') is global and assumed valid.
R1 type=fp expected=ctx
Caller passes invalid args into func#2 ('other')
processed 21 insns (limit 1000000) max_states_per_insn 0 total_states 2 peak_states 2 mark_read 0
"""
    assert excerpt(log).startswith("R1 type=fp expected=ctx; Caller passes")
