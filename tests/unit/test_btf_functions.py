"""Functions that trampolines can be put around, told by their types."""

from __future__ import annotations

from netbpf.btf import functions
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from tests.unit.blobs import Blob


def test_functions_by_their_types() -> None:
    blob = Blob()
    number = blob.add(t.KIND_INT, "int", 4, 32)
    pointer = blob.add(t.KIND_PTR, "", number)
    real = blob.add(t.KIND_FLOAT, "double", 8)
    array = blob.add(t.KIND_ARRAY, "", 0, number, number, 4)
    unknown = blob.add(t.KIND_FWD, "later")
    two = blob.add(t.KIND_STRUCT, "two", 16)
    three = blob.add(t.KIND_STRUCT, "three", 24)
    typedef = blob.add(t.KIND_TYPEDEF, "alias", two)

    def function(name: str, returns: int, *params: int) -> int:
        words = [word for each in params for word in (0, each)]
        proto = blob.add(t.KIND_FUNC_PROTO, "", returns, *words, vlen=len(params))
        return blob.add(t.KIND_FUNC, name, proto)

    good = {
        "f_none": function("f_none", 0),
        "f_all": function("f_all", number, number, pointer, two, typedef),
        "f_pointer": function("f_pointer", pointer, *[number] * 12),
        "g_other": function("g_other", 0, number),
    }
    function("f_many", 0, *[number] * 13)
    function("f_variable", 0, pointer, 0)
    function("f_large", 0, three)
    function("f_returned", two)
    for name, kind in (("f_real", real), ("f_array", array), ("f_unknown", unknown)):
        function(name, 0, kind)
    function("f_returns_real", real)
    btf = Btf.parse(bytes(blob))
    assert functions.matching(btf, "*") == good
    assert functions.matching(btf, "f_p?inter") == {"f_pointer": good["f_pointer"]}
    assert functions.matching(btf, "f_large") == functions.matching(btf, "") == {}
