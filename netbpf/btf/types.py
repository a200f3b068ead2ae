"""The kinds of BTF types as plain dataclasses; a type refers to another by its id."""

from __future__ import annotations

from netbpf.records import record

# include/uapi/linux/btf.h
KIND_VOID = 0
KIND_INT = 1
KIND_PTR = 2
KIND_ARRAY = 3
KIND_STRUCT = 4
KIND_UNION = 5
KIND_ENUM = 6
KIND_FWD = 7
KIND_TYPEDEF = 8
KIND_VOLATILE = 9
KIND_CONST = 10
KIND_RESTRICT = 11
KIND_FUNC = 12
KIND_FUNC_PROTO = 13
KIND_VAR = 14
KIND_DATASEC = 15
KIND_FLOAT = 16
KIND_DECL_TAG = 17
KIND_TYPE_TAG = 18
KIND_ENUM64 = 19

INT_SIGNED = 1
INT_CHAR = 2
INT_BOOL = 4

LINKAGE_STATIC = 0
LINKAGE_GLOBAL = 1
LINKAGE_EXTERN = 2


@record(slots=True)
class Void:
    """Type id 0."""

    name = ""
    kind = KIND_VOID


@record(slots=True)
class Int:
    """An integer, a character or a bool of ``size`` bytes; ``bits`` of it hold the value."""

    name: str
    size: int
    encoding: int
    offset: int
    bits: int
    kind = KIND_INT

    @property
    def signed(self) -> bool:
        """Whether the value has a sign."""
        return bool(self.encoding & INT_SIGNED)

    @property
    def bool_(self) -> bool:
        """Whether it is C's ``_Bool``."""
        return bool(self.encoding & INT_BOOL)


@record(slots=True)
class Ptr:
    """A pointer to ``type_id``."""

    type_id: int
    name = ""
    kind = KIND_PTR


@record(slots=True)
class Array:
    """``length`` times ``type_id`` (no size stands for a flexible array: length 0)."""

    type_id: int
    index_type_id: int
    length: int
    name = ""
    kind = KIND_ARRAY


@record(slots=True)
class Member:
    """A member of a struct or union; ``bit_size`` is 0 unless it is a bit field."""

    name: str
    type_id: int
    bit_offset: int
    bit_size: int

    @property
    def offset(self) -> int:
        """The offset in bytes (of a bit field: of the byte that holds its first bit)."""
        return self.bit_offset // 8


@record(slots=True)
class Struct:
    """A struct of ``size`` bytes."""

    name: str
    size: int
    members: tuple[Member, ...]
    kind = KIND_STRUCT


@record(slots=True)
class Union:
    """A union of ``size`` bytes."""

    name: str
    size: int
    members: tuple[Member, ...]
    kind = KIND_UNION


@record(slots=True)
class Enum:
    """An enumeration of ``size`` bytes; 64-bit values and small ones alike."""

    name: str
    size: int
    signed: bool
    values: tuple[tuple[str, int], ...]
    kind: int = KIND_ENUM


@record(slots=True)
class Fwd:
    """A declaration of a struct or union (``union`` true) whose body is elsewhere."""

    name: str
    union: bool
    kind = KIND_FWD


@record(slots=True)
class Typedef:
    """Another name for ``type_id``."""

    name: str
    type_id: int
    kind = KIND_TYPEDEF


@record(slots=True)
class Qualifier:
    """const, volatile or restrict (``kind`` says which)."""

    type_id: int
    kind: int
    name = ""


@record(slots=True)
class TypeTag:
    """``__attribute__((btf_type_tag("name")))``, or with ``attribute`` any other attribute."""

    name: str
    type_id: int
    attribute: bool
    kind = KIND_TYPE_TAG


@record(slots=True)
class DeclTag:
    """A tag on ``type_id`` itself (``component`` -1) or on one of its members or parameters."""

    name: str
    type_id: int
    component: int
    attribute: bool
    kind = KIND_DECL_TAG


@record(slots=True)
class Func:
    """A function whose prototype is ``type_id``; ``linkage`` is one of ``LINKAGE_…``."""

    name: str
    type_id: int
    linkage: int
    kind = KIND_FUNC


@record(slots=True)
class FuncProto:
    """A prototype: what it returns, and its parameters as (name, type id)."""

    type_id: int
    params: tuple[tuple[str, int], ...]
    name = ""
    kind = KIND_FUNC_PROTO


@record(slots=True)
class Var:
    """A variable; ``linkage`` is one of ``LINKAGE_…``."""

    name: str
    type_id: int
    linkage: int
    kind = KIND_VAR


@record(slots=True)
class SecVar:
    """Where the variable ``type_id`` lies in its section."""

    type_id: int
    offset: int
    size: int


@record(slots=True)
class DataSec:
    """A section of ``size`` bytes and the variables in it."""

    name: str
    size: int
    variables: tuple[SecVar, ...]
    kind = KIND_DATASEC


@record(slots=True)
class Float:
    """A floating point number of ``size`` bytes."""

    name: str
    size: int
    kind = KIND_FLOAT


@record(slots=True)
class Unknown:
    """A kind newer than this reader, stepped over thanks to the blob's own layout section."""

    name: str
    kind: int


Type = (
    Void
    | Int
    | Ptr
    | Array
    | Struct
    | Union
    | Enum
    | Fwd
    | Typedef
    | Qualifier
    | TypeTag
    | DeclTag
    | Func
    | FuncProto
    | Var
    | DataSec
    | Float
    | Unknown
)
