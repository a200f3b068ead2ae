"""Dataclasses and cached properties without their modules, which cost more than a command's work.

What they have here: slots, frozen, defaults, ``repr``, ``==``, a hash where they are frozen; they
can be copied and pickled. Type checkers see dataclasses, and ``dataclasses.replace`` takes them for
some.
"""

from __future__ import annotations

__all__ = ["cached_property", "field", "record", "replace"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as record
    from dataclasses import field, replace
    from functools import cached_property
else:
    _NONE = object()

    class _Field:
        def __init__(self, default, factory=_NONE, shown=True, taken=True):
            self.default, self.factory = default, factory
            self.shown, self.taken = shown, taken

    class _Fields:
        # What dataclasses.replace and its kin look for; made when they do.
        def __get__(self, one, kind):
            import dataclasses

            found = {}
            for name in kind.__slots__:
                each = found[name] = dataclasses.field(init=name in kind.__match_args__)
                each.name, each._field_type = name, dataclasses._FIELD
            return found

    class _Init:
        # Compiled when it is first asked for: of the records that are imported few are made.
        def __init__(self, fields, frozen):
            self._fields, self._frozen = fields, frozen

        def __set_name__(self, owner, name):
            self._owner = owner

        def __get__(self, one, kind):
            made = self._owner.__init__ = _init(self._fields, self._frozen)
            return made.__get__(one, kind)

    def _init(fields, frozen):
        given = {"_set": object.__setattr__, "_none": _NONE}
        head, body = ["self"], []
        for name, entry in fields.items():
            value, text = name, name
            if entry.factory is not _NONE:
                given[f"_make_{name}"] = entry.factory
                text = f"{name}=_none"
                value = f"_make_{name}() if {name} is _none else {name}"
            elif entry.default is not _NONE:
                given[f"_is_{name}"] = entry.default
                text = f"{name}=_is_{name}"
            if entry.taken:
                head.append(text)
            else:
                value = f"_is_{name}"
            body.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
        lines = "\n ".join(body) or "pass"
        exec(f"def __init__({', '.join(head)}):\n {lines}", given)
        return given["__init__"]

    class cached_property:
        """A property that is worked out once; its object has a ``__dict__``."""

        def __init__(self, work_out):
            self._work_out, self.__doc__ = work_out, work_out.__doc__

        def __set_name__(self, owner, name):
            self._name = name

        def __get__(self, one, kind):
            if one is None:
                return self
            value = one.__dict__[self._name] = self._work_out(one)
            return value

    def field(*, default=_NONE, default_factory=_NONE, repr=True, init=True):
        """A field with more to say of it than a default."""
        return _Field(default, default_factory, repr, init)

    def replace(one, **changes):
        """A copy with other values."""
        kind = type(one)
        return kind(**{name: getattr(one, name) for name in kind.__match_args__} | changes)

    def record(*, slots, frozen=False, eq=True, repr=True):
        """Make a class of its annotations; slots are the only way."""
        return lambda cls: _made(cls, frozen, eq, repr)

    def _made(cls, frozen, eq, told):
        names = tuple(getattr(cls, "__annotations__", ()))
        space = {k: v for k, v in cls.__dict__.items() if k not in ("__dict__", "__weakref__")}
        fields = {}
        for name in names:
            entry = space.pop(name, _NONE)
            fields[name] = entry if isinstance(entry, _Field) else _Field(entry)
        space["__slots__"], space["__qualname__"] = names, cls.__qualname__
        space["__match_args__"] = tuple(name for name in names if fields[name].taken)
        space["__init__"] = _Init(fields, frozen)
        space["__dataclass_fields__"] = _Fields()

        def __repr__(self):
            shown = (name for name in names if fields[name].shown)
            said = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
            return f"{cls.__qualname__}({said})"

        def __eq__(self, other):
            if type(other) is not type(self):
                return NotImplemented
            return all(getattr(self, name) == getattr(other, name) for name in names)

        if told:
            space.setdefault("__repr__", __repr__)
        if eq:
            space.setdefault("__eq__", __eq__)
        if frozen:

            def __hash__(self):
                return hash(tuple(getattr(self, name) for name in names))

            def __setattr__(self, name, value):
                raise AttributeError(f"cannot assign to field {name!r}")

            def __delattr__(self, name):
                raise AttributeError(f"cannot delete field {name!r}")

            # For copy and pickle, which would set each field of a new one.
            def __getstate__(self):
                return [getattr(self, name) for name in names]

            def __setstate__(self, state):
                for name, value in zip(names, state, strict=True):
                    object.__setattr__(self, name, value)

            space |= {"__setattr__": __setattr__, "__delattr__": __delattr__}
            space |= {"__getstate__": __getstate__, "__setstate__": __setstate__}
            space.setdefault("__hash__", __hash__)
        elif eq:
            space["__hash__"] = None
        return type(cls)(cls.__name__, cls.__bases__, space)
