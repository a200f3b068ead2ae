"""Object files into the kernel: maps created, variables set, programs loaded.

``with netbpf.loader.open("filter.o") as obj: obj.load()``
"""

from __future__ import annotations

from netbpf.loader.object import Object, open

__all__ = ["Object", "open"]
