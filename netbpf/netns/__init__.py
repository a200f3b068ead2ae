"""Network namespaces: as handles, as names, and entering them with a thread."""

from netbpf.netns.enter import enter_for_good, entered, may_return, run_in
from netbpf.netns.handle import NetNS
from netbpf.netns.holders import Namespace, pids_by_inode, scan
from netbpf.netns.making import add, add_many
from netbpf.netns.named import (
    check_deletable,
    check_new,
    delete,
    inodes_by_name,
    list_names,
    name_of,
)
from netbpf.netns.names import RUN_DIR, check_name
from netbpf.netns.run import exec_in
from netbpf.netns.visit import visit

__all__ = [
    "RUN_DIR",
    "Namespace",
    "NetNS",
    "add",
    "add_many",
    "check_deletable",
    "check_name",
    "check_new",
    "delete",
    "enter_for_good",
    "entered",
    "exec_in",
    "inodes_by_name",
    "list_names",
    "may_return",
    "name_of",
    "pids_by_inode",
    "run_in",
    "scan",
    "visit",
]
