"""The bpf(2) UAPI that is #define in C, which BTF does not hold; written by hand."""

from __future__ import annotations

# include/uapi/linux/bpf.h: flags of BPF_PROG_ATTACH, BPF_PROG_DETACH and BPF_LINK_CREATE.
# BPF_F_LINK, that goes with them, is an enumerator of 1 << 13 and stands in uapi.py as well.
BPF_F_ALLOW_OVERRIDE = 1 << 0
BPF_F_ALLOW_MULTI = 1 << 1
BPF_F_REPLACE = 1 << 2
BPF_F_BEFORE = 1 << 3
BPF_F_AFTER = 1 << 4
BPF_F_ID = 1 << 5
BPF_F_PREORDER = 1 << 6
BPF_F_LINK = 1 << 13

# include/uapi/linux/bpf.h: flags of BPF_LINK_CREATE for netfilter.
BPF_F_NETFILTER_IP_DEFRAG = 1 << 0

# include/uapi/linux/bpf.h: flags of BPF_PROG_LOAD.
BPF_F_STRICT_ALIGNMENT = 1 << 0
BPF_F_ANY_ALIGNMENT = 1 << 1
BPF_F_TEST_RND_HI32 = 1 << 2
BPF_F_TEST_STATE_FREQ = 1 << 3
BPF_F_SLEEPABLE = 1 << 4
BPF_F_XDP_HAS_FRAGS = 1 << 5
BPF_F_XDP_DEV_BOUND_ONLY = 1 << 6
BPF_F_TEST_REG_INVARIANTS = 1 << 7

# include/uapi/linux/bpf.h: flags of BPF_PROG_QUERY and BPF_PROG_TEST_RUN.
BPF_F_QUERY_EFFECTIVE = 1 << 0
BPF_F_TEST_RUN_ON_CPU = 1 << 0
BPF_F_TEST_XDP_LIVE_FRAMES = 1 << 1
BPF_F_TEST_SKB_CHECKSUM_COMPLETE = 1 << 2

# include/uapi/linux/bpf.h: src_reg of a 16-byte load (BPF_LD | BPF_IMM | BPF_DW).
BPF_PSEUDO_MAP_FD = 1
BPF_PSEUDO_MAP_VALUE = 2
BPF_PSEUDO_BTF_ID = 3
BPF_PSEUDO_FUNC = 4
BPF_PSEUDO_MAP_IDX = 5
BPF_PSEUDO_MAP_IDX_VALUE = 6

# include/uapi/linux/bpf.h: src_reg of a call.
BPF_PSEUDO_CALL = 1
BPF_PSEUDO_KFUNC_CALL = 2

# include/uapi/linux/bpf.h
BPF_OBJ_NAME_LEN = 16
BPF_TAG_SIZE = 8
BPF_BUILD_ID_SIZE = 20

# include/uapi/linux/bpf_common.h, include/uapi/linux/bpf.h: the opcodes that a loader looks at.
BPF_LD_IMM64 = 0x18
BPF_JMP_CALL = 0x85
BPF_INSN_SIZE = 8

# include/linux/bpf_verifier.h: log levels, and the largest log the kernel takes.
BPF_LOG_LEVEL1 = 1
BPF_LOG_LEVEL2 = 2
BPF_LOG_STATS = 4
BPF_LOG_FIXED = 8
BPF_LOG_MAX = (1 << 30) - 1

# include/linux/bpf_mprog.h: one more than a chain takes.
BPF_MPROG_MAX = 64

# include/uapi/linux/magic.h
BPF_FS_MAGIC = 0xCAFE4A11
