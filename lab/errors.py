"""What the lab says when it cannot do its work."""

from __future__ import annotations

LOST = 125
"""The exit status of a guest that was lost, and of a lab that could not start one."""


class LabError(Exception):
    """The lab itself failed: nothing is known about the command.

    The message names what is missing and what to do about it.
    """


class NoMirrorError(LabError):
    """No Debian mirror could be found or reached; the folder of packages is the way out."""
