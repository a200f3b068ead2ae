"""BTF as pure bytes and types: reads, patches, opens nothing, calls no kernel."""

from __future__ import annotations

from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError

__all__ = ["Btf", "BtfFormatError"]
