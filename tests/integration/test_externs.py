"""Externs in the kernel: values of its configuration, its variables and functions."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from netbpf import loader
from netbpf.bpf import link_create
from netbpf.bpf.fd import FD
from netbpf.bpf.prog import Program
from netbpf.errors import ObjectFileError, VerifierError
from netbpf.loader import kconfig
from tests.netns_fixtures.objects import build

PACKET = bytes(64)
LICENSE = 'char _license[] SEC("license") = "GPL";\n'

VALUES = """
extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool LINUX_HAS_BPF_COOKIE __kconfig __weak;
extern _Bool LINUX_HAS_SYSCALL_WRAPPER __kconfig __weak;
extern _Bool CONFIG_BPF_SYSCALL __kconfig;
extern enum libbpf_tristate CONFIG_NET __kconfig;
extern char CONFIG_INET __kconfig;
extern int CONFIG_HZ __kconfig;
extern unsigned long CONFIG_LOG_BUF_SHIFT __kconfig;
extern char CONFIG_CC_VERSION_TEXT[8] __kconfig;
extern int CONFIG_NETBPF_HAS_NO_SUCH __kconfig __weak;
extern char CONFIG_NETBPF_NOR_SUCH[16] __kconfig __weak;

unsigned long long values[10];
char text[8];

SEC("tc") int reads(struct __sk_buff *skb)
{
	values[0] = LINUX_KERNEL_VERSION;
	values[1] = LINUX_HAS_BPF_COOKIE;
	values[2] = LINUX_HAS_SYSCALL_WRAPPER;
	values[3] = CONFIG_BPF_SYSCALL;
	values[4] = CONFIG_NET;
	values[5] = CONFIG_INET;
	values[6] = CONFIG_HZ;
	values[7] = CONFIG_LOG_BUF_SHIFT;
	values[8] = CONFIG_NETBPF_HAS_NO_SUCH + CONFIG_NETBPF_NOR_SUCH[3];
	for (int i = 0; i < 8; i++)
		text[i] = ((volatile char *)CONFIG_CC_VERSION_TEXT)[i];
	return 0;
}
"""

SYMBOLS = """
struct task_struct { int pid; } __attribute__((preserve_access_index));
extern const void vfs_read __ksym;
extern const void netbpf_no_such_symbol __ksym __weak;
extern const int netbpf_no_such_variable __ksym __weak;
unsigned long long address, nothing;

SEC("raw_tp/sys_enter") int variables(void *ctx)
{
	address = (unsigned long long)&vfs_read;
	nothing = (unsigned long long)&netbpf_no_such_symbol;
	if (&netbpf_no_such_variable)
		nothing = 1;
	return 0;
}
"""

TYPED = """
struct rq { int cpu; } __attribute__((preserve_access_index));
extern const struct rq runqueues __ksym;
extern const int bpf_prog_active __ksym;
int cpu = -1, active = -1;

SEC("raw_tp/sys_enter") int variables(void *ctx)
{
	struct rq *rq = (struct rq *)bpf_per_cpu_ptr(&runqueues, 1);
	int *mine = (int *)bpf_this_cpu_ptr(&bpf_prog_active);

	if (rq)
		cpu = rq->cpu;
	active = *mine;
	return 0;
}
"""

FUNCTIONS = """
struct task_struct { int pid; } __attribute__((preserve_access_index));
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern struct task_struct *bpf_task_from_pid___flavour(int pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym;
extern void bpf_task_release___other(struct task_struct *p, int, int) __ksym __weak;
extern void netbpf_no_such_function(void) __ksym __weak;
int asked, found, there;

SEC("tc") int calls(struct __sk_buff *skb)
{
	int pid = bpf_get_current_pid_tgid();
	struct task_struct *task = bpf_task_from_pid(pid);

	asked = pid;
	if (task) {
		found = task->pid;
		bpf_task_release(task);
	}
	if (bpf_task_from_pid___flavour)
		there |= 1;
	if (bpf_task_release___other)
		there |= 2;
	if (netbpf_no_such_function) {
		there |= 4;
		netbpf_no_such_function();
	}
	return 0;
}
"""
CARELESS = (
    FUNCTIONS
    + """
SEC("tc") int careless(struct __sk_buff *skb) { netbpf_no_such_function(); return 0; }
"""
)


def made(text: str, name: str = "externs") -> Path:
    return build(text + LICENSE, name=name)


def bpftool(*args: object) -> object:
    done = subprocess.run(
        ["bpftool", "-j", *map(str, args)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout) if done.stdout.strip() else None


def config() -> dict[str, str]:
    """The kernel's configuration, read a second way."""
    boot = Path(f"/boot/config-{os.uname().release}")
    packed = Path("/proc/config.gz")
    text = boot.read_text() if boot.exists() else gzip.decompress(packed.read_bytes()).decode()
    return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.M))


@pytest.mark.parametrize(
    "text", [pytest.param(VALUES, marks=pytest.mark.needs("kconfig")), SYMBOLS, FUNCTIONS]
)
def test_tags_are_those_of_libbpf(text: str, bpffs: Path) -> None:
    # Older releases know no flavours, and write another number into a call of nothing.
    text = text.replace("bpf_task_from_pid___flavour", "bpf_task_from_vpid")
    text = text.replace("\t\tnetbpf_no_such_function();\n", "")
    file = made(text)
    bpftool("prog", "loadall", file, bpffs / "peer")
    with loader.open(file) as obj:
        obj.load()
        for name, program in obj.programs.items():
            with Program.from_pin(str(bpffs / "peer" / name)) as peer:
                assert program.info().tag == peer.info().tag, name


@pytest.mark.needs("kconfig")
def test_values_of_the_configuration() -> None:
    known = config()
    with loader.open(made(VALUES)) as obj:
        obj.load()
        assert obj.programs["reads"].test_run(PACKET).retval == 0
        values = obj.get("values")
        release = re.match(r"(\d+)\.(\d+)\.(\d+)", os.uname().release)
        assert release is not None
        major, minor, patch = map(int, release.groups())
        assert values[0] == major << 16 | minor << 8 | min(patch, 255)
        assert values[1] == 1, "since 5.15"
        symbols = Path("/proc/kallsyms").read_text()
        assert values[2] == int(re.search(r" __\w+_sys_bpf$", symbols, re.M) is not None)
        assert values[3] == int(known["CONFIG_BPF_SYSCALL"] == "y")
        assert values[4] == {"y": 1, "m": 2}[known["CONFIG_NET"]]
        assert values[5] == ord(known["CONFIG_INET"])
        assert values[6] == int(known["CONFIG_HZ"])
        assert values[7] == int(known["CONFIG_LOG_BUF_SHIFT"])
        assert values[8] == 0
        assert obj.get("text") == known["CONFIG_CC_VERSION_TEXT"].strip('"')[:7]
        kept = next(m for m in obj.maps.values() if m.info().name.endswith(".kconfig"))
        shown = bpftool("map", "show", "id", kept.id)
        assert isinstance(shown, dict)
        assert shown["frozen"] == 1
        with pytest.raises(ValueError, match="constant once the object is loaded"):
            obj.set("CONFIG_HZ", 1)


@pytest.mark.needs("kconfig")
def test_values_set_by_hand() -> None:
    with loader.open(made(VALUES)) as obj:
        obj.set("CONFIG_HZ", 12345)
        obj.set("CONFIG_NET", "TRI_MODULE")
        obj.load()
        obj.programs["reads"].test_run(PACKET)
        assert obj.get("values")[6] == 12345
        assert obj.get("values")[4] == 2


@pytest.mark.needs("kconfig")
@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("int CONFIG_NETBPF_NONE __kconfig;", "program reads: .*NETBPF_NONE is not in this kern"),
        ("_Bool LINUX_NO_SUCH __kconfig;", "LINUX_NO_SUCH is no value"),
        ("_Bool NO_SUCH __kconfig __weak;", "NO_SUCH is no value"),
        ("int CONFIG_NET __kconfig;", "CONFIG_NET is y here: it has to be a bool, a tristate"),
        ("_Bool CONFIG_HZ __kconfig;", "CONFIG_HZ is [0-9]+ here, which a bool cannot hold"),
        ("int CONFIG_CC_VERSION_TEXT __kconfig;", "it has to be an array of char"),
        ("char CONFIG_HZ[8] __kconfig;", "it has to be an integer, a char or a bool"),
    ],
)
def test_values_that_cannot_be_had(declared: str, message: str, bpffs: Path) -> None:
    name = declared.split()[1].partition("[")[0]
    use = f"((volatile char *){name})[0]" if "[" in declared else name
    file = made(
        f'extern {declared}\nSEC("tc") int reads(struct __sk_buff *skb) {{ return {use}; }}'
    )
    with loader.open(file) as obj, pytest.raises(ObjectFileError, match=message):
        obj.load()
    peer = subprocess.run(["bpftool", "prog", "load", file, bpffs / "p"], capture_output=True)
    assert peer.returncode, "libbpf refuses it too"


def test_lines_of_a_configuration(tmp_path: Path) -> None:
    text = 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x=\\"y"\nOTHER=1\nCONFIG_D=-5\n'
    plain, packed = tmp_path / "config", tmp_path / "config.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    expected = [("CONFIG_A", "y"), ("CONFIG_C", '"x=\\"y"'), ("CONFIG_D", "-5")]
    assert list(kconfig.settings([str(tmp_path / "none"), str(plain)])) == expected
    assert list(kconfig.settings([str(packed), str(plain)])) == expected
    assert list(kconfig.settings([str(tmp_path / "none")])) == []


def test_variables_of_the_kernel() -> None:
    with loader.open(made(SYMBOLS)) as obj:
        obj.load()
        # A system call of ours runs the program.
        with FD(link_create.raw_tracepoint(obj.programs["variables"].fileno(), "sys_enter")):
            os.getppid()
        symbols = Path("/proc/kallsyms").read_text()
        at = re.search(r"^([0-9a-f]+) \w vfs_read$", symbols, re.M)
        assert at is not None
        assert obj.get("address") == int(at[1], 16) != 0
        assert obj.get("nothing") == 0


@pytest.mark.needs("kallsyms-all")
def test_variables_with_a_type(bpffs: Path) -> None:
    file = made(TYPED)
    bpftool("prog", "loadall", file, bpffs / "peer")
    with loader.open(file) as obj:
        obj.load()
        with Program.from_pin(str(bpffs / "peer" / "variables")) as peer:
            assert obj.programs["variables"].info().tag == peer.info().tag
        with FD(link_create.raw_tracepoint(obj.programs["variables"].fileno(), "sys_enter")):
            os.getppid()
        cpus = os.cpu_count() or 1
        assert obj.get("cpu") == (1 if cpus > 1 else -1)
        assert obj.get("active") >= 0


def test_functions_of_the_kernel() -> None:
    with loader.open(made(FUNCTIONS)) as obj:
        obj.load()
        assert obj.programs["calls"].test_run(PACKET).retval == 0
        assert obj.get("found") == obj.get("asked") == os.getpid()
        assert obj.get("there") == 1, "the flavour that fits, and no other"


def test_a_weak_function_called_without_asking() -> None:
    with loader.open(made(CARELESS)) as obj, pytest.raises(VerifierError) as caught:
        obj.load(only=["careless"])
    assert "it calls netbpf_no_such_function, which this kernel has not" in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "use", "message"),
    [
        (
            "void netbpf_none(void) __ksym;",
            "netbpf_none()",
            "program uses: netbpf_none is no function that this kernel",
        ),
        (
            "const int netbpf_none __ksym;",
            "(void)*(volatile long *)&netbpf_none",
            "program uses: netbpf_none is no variable",
        ),
        (
            "const void netbpf_none __ksym;",
            'bpf_printk("%lx", &netbpf_none)',
            "program uses: netbpf_none is no symbol of this kernel",
        ),
        (
            "int bpf_task_release(int, int) __ksym;",
            "bpf_task_release(1, 2)",
            r"program uses: bpf_task_release is a function of another type in this kernel than it "
            r"is declared to be; there it is void bpf_task_release\(struct task_struct \*p\)",
        ),
        (
            "const int runqueues __ksym;",
            "(void)*(volatile long *)&runqueues",
            "program uses: runqueues is a variable of another type",
        ),
    ],
)
def test_what_the_kernel_lacks_is_named(declared: str, use: str, message: str, bpffs: Path) -> None:
    text = f"""
    extern {declared}
    static __attribute__((noinline)) void below(void) {{ {use}; }}
    SEC("tc") int uses(struct __sk_buff *skb) {{ below(); return 0; }}
    """
    file = made(text)
    with loader.open(file) as obj, pytest.raises(ObjectFileError, match=message):
        obj.load()
    peer = subprocess.run(["bpftool", "prog", "load", file, bpffs / "p"], capture_output=True)
    assert peer.returncode, "libbpf refuses it too"
