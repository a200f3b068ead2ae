"""A program with probes of its own (USDT), as <sys/sdt.h> writes them, to be compiled and run."""

from __future__ import annotations

import subprocess
from pathlib import Path

NAME = "netbpf-probed"

# What each note says is told by the assembler; sdt.h has operands of the compiler's choice, and
# here they are chosen so that every kind comes up.
SOURCE = r"""
#include <stdio.h>

#define NOTE(name, semaphore, arguments)                                              \
    "990: nop\n"                                                                      \
    ".pushsection .note.stapsdt, \"?\", \"note\"\n"                                   \
    ".balign 4\n.4byte 992f-991f, 994f-993f, 3\n"                                     \
    "991: .asciz \"stapsdt\"\n992: .balign 4\n"                                       \
    "993: .8byte 990b\n.8byte _.stapsdt.base\n.8byte " semaphore "\n"                 \
    ".asciz \"netbpf\"\n.asciz \"" name "\"\n.asciz \"" arguments "\"\n"              \
    "994: .balign 4\n.popsection\n"                                                   \
    ".ifndef _.stapsdt.base\n"                                                        \
    ".pushsection .stapsdt.base, \"aG\", \"progbits\", .stapsdt.base, comdat\n"       \
    ".weak _.stapsdt.base\n.hidden _.stapsdt.base\n"                                  \
    "_.stapsdt.base: .space 1\n.size _.stapsdt.base, 1\n.popsection\n.endif\n"

__attribute__((section(".probes"), visibility("hidden"))) volatile unsigned short semaphore;

__attribute__((noinline)) static void kinds(long wide, long *memory)
{
    long local = memory[0] + 1;

    __asm__ volatile(NOTE("kinds", "semaphore",
        "1@%b0 -1@%b0 2@%w0 -2@%w0 4@%k0 -4@%k0 8@%q0 "
        "4@$71 -8@$-9 2@(%1) -2@8(%1) 8@%2")
        :: "r"(wide), "r"(memory), "m"(local));
}

static inline __attribute__((always_inline)) void places(long value)
{
    __asm__ volatile(NOTE("places", "0", "-8@%0") :: "nor"(value));
}

static inline __attribute__((always_inline)) void bare(void)
{
    __asm__ volatile(NOTE("bare", "0", ""));
}

__attribute__((noinline)) static void indexed(short *table, long index)
{
    __asm__ volatile(NOTE("indexed", "0", "-2@2(%0,%1,2) -2@(%0,%1)")
        :: "r"(table), "r"(index));
}

int run(int again)
{
    long memory[2] = { 0x7fffffff8000, 0x1234fffe };
    short table[] = { 10, -11, 12, -13, 14 };
    volatile long somewhere = -30;

    printf("%d\n", semaphore);
    fflush(stdout);
    if (getchar() == EOF)
        return 1;
    kinds(0x81828384f5f6f7f8, memory);
    places(10);
    places(again * 20);
    for (int i = 0; i < again; i++)
        places(somewhere);
    bare();
    indexed(table, 2);
    bare();
    printf("%d\n", semaphore);
    return 0;
}

#ifndef LIBRARY
int main(int argc, char **argv)
{
    return run(argc);
}
#endif
"""
MAIN = "int run(int); int main(int argc, char **argv) { return run(argc); }\n"


def build(folder: Path, *flags: str) -> Path:
    """The program, made with these flags of gcc."""
    return _gcc(folder / NAME, SOURCE, *flags)


def build_library(folder: Path) -> tuple[Path, Path]:
    """A library with the probes, and a program that is linked with it."""
    library = _gcc(folder / "libprobed.so", SOURCE, "-DLIBRARY", "-shared", "-fPIC")
    return library, _gcc(folder / "main", MAIN, str(library), f"-Wl,-rpath,{folder}")


def _gcc(output: Path, source: str, *flags: str) -> Path:
    file = output.with_name(f"{output.name}.c")
    file.write_text(source)
    subprocess.run(["gcc", "-O1", "-o", output, file, *flags], check=True)
    return output


class Running:
    """The program, stopped before its probes; ``go`` lets it run to its end.

    ``semaphores`` is how many looked at the probe ``kinds`` before and after.
    """

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.semaphores = [int(self._process.stdout.readline())]

    def go(self) -> None:
        rest, _ = self._process.communicate("\n")
        assert self._process.returncode == 0
        self.semaphores.append(int(rest))


def run(program: Path) -> list[int]:
    """Run the program; how many looked at the probe ``kinds`` before and after."""
    running = Running(program)
    running.go()
    return running.semaphores


WIDE = 0x81828384F5F6F7F8
KINDS = [
    0xF8,
    -8,
    0xF7F8,
    0xF7F8 - (1 << 16),
    0xF5F6F7F8,
    0xF5F6F7F8 - (1 << 32),
    WIDE - (1 << 64),
    71,
    -9,
    0x8000,
    -2,
    0x7FFFFFFF8001,
]
"""What a program finds at the probe ``kinds``."""
PLACES = [10, 20, -30]
"""And at ``places``, each time that the program comes by."""
