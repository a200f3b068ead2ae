"""All types of a BTF as plain data for JSON; kinds and keys are called as bpftool calls them."""

from __future__ import annotations

from typing import Any

from netbpf.btf import types as t
from netbpf.btf.blob import Btf

KINDS = {
    t.KIND_INT: "INT",
    t.KIND_PTR: "PTR",
    t.KIND_ARRAY: "ARRAY",
    t.KIND_STRUCT: "STRUCT",
    t.KIND_UNION: "UNION",
    t.KIND_ENUM: "ENUM",
    t.KIND_FWD: "FWD",
    t.KIND_TYPEDEF: "TYPEDEF",
    t.KIND_VOLATILE: "VOLATILE",
    t.KIND_CONST: "CONST",
    t.KIND_RESTRICT: "RESTRICT",
    t.KIND_FUNC: "FUNC",
    t.KIND_FUNC_PROTO: "FUNC_PROTO",
    t.KIND_VAR: "VAR",
    t.KIND_DATASEC: "DATASEC",
    t.KIND_FLOAT: "FLOAT",
    t.KIND_DECL_TAG: "DECL_TAG",
    t.KIND_TYPE_TAG: "TYPE_TAG",
    t.KIND_ENUM64: "ENUM64",
}
_LINKAGES = {t.LINKAGE_STATIC: "static", t.LINKAGE_GLOBAL: "global", t.LINKAGE_EXTERN: "extern"}
_ENCODINGS = {t.INT_SIGNED: "SIGNED", t.INT_CHAR: "CHAR", t.INT_BOOL: "BOOL"}


def documents(btf: Btf) -> list[dict[str, Any]]:
    """Each type of ``btf`` (of a split one without those of its base), in the order of their ids.

    :raises BtfFormatError: a string lies outside of the blob.
    """
    return [document(type_id, found) for type_id, found in btf]


def document(type_id: int, found: t.Type) -> dict[str, Any]:
    """One type; what has no name has null there."""
    head = {
        "id": type_id,
        "kind": KINDS.get(found.kind, f"KIND_{found.kind}"),
        "name": _text(found.name),
    }
    return head | _body(found)


def _body(found: t.Type) -> dict[str, Any]:
    match found:
        case t.Struct() | t.Union():
            members = [
                {
                    "name": _text(m.name),
                    "type_id": m.type_id,
                    "bits_offset": m.bit_offset,
                    "bitfield_size": m.bit_size or None,
                }
                for m in found.members
            ]
            return {"size": found.size, "vlen": len(members), "members": members}
        case t.Ptr() | t.Typedef() | t.Qualifier():
            return {"type_id": found.type_id}
        case t.FuncProto():
            params = [{"name": _text(name), "type_id": type_id} for name, type_id in found.params]
            return {"ret_type_id": found.type_id, "vlen": len(params), "params": params}
        case t.Func():
            return {"type_id": found.type_id, "linkage": _linkage(found.linkage)}
        case t.Enum():
            values = [{"name": _text(name), "val": value} for name, value in found.values]
            encoding = "SIGNED" if found.signed else "UNSIGNED"
            return {
                "encoding": encoding,
                "size": found.size,
                "vlen": len(values),
                "values": values,
            }
    return _rare(found)


def _rare(found: t.Type) -> dict[str, Any]:
    match found:
        case t.Int():
            words = [word for bit, word in _ENCODINGS.items() if found.encoding & bit]
            return {
                "size": found.size,
                "bits_offset": found.offset,
                "nr_bits": found.bits,
                "encoding": " ".join(words) or None,
            }
        case t.Array():
            return {
                "type_id": found.type_id,
                "index_type_id": found.index_type_id,
                "nr_elems": found.length,
            }
        case t.Fwd():
            return {"fwd_kind": "union" if found.union else "struct"}
        case t.Var():
            return {"type_id": found.type_id, "linkage": _linkage(found.linkage)}
        case t.DataSec():
            variables = [
                {"type_id": v.type_id, "offset": v.offset, "size": v.size} for v in found.variables
            ]
            return {"size": found.size, "vlen": len(variables), "vars": variables}
        case t.Float():
            return {"size": found.size}
        case t.DeclTag():
            return {
                "type_id": found.type_id,
                "component_idx": found.component,
                "attribute": found.attribute,
            }
        case t.TypeTag():
            return {"type_id": found.type_id, "attribute": found.attribute}
    return {}


def _linkage(number: int) -> str:
    return _LINKAGES.get(number, str(number))


def _text(name: str) -> str | None:
    # A name that is no UTF-8 was read byte by byte, which JSON cannot hold.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") or None
