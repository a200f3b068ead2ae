"""What the options that stand everywhere say, for the one command that runs."""

from __future__ import annotations


class Settings:
    """The options accepted before the noun and after the verb."""

    # No dataclass: to import that costs a quick command more than all that it does here.
    __slots__ = ("debug", "dry_run", "json", "netns", "told", "verbose")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to what holds when nothing was said."""
        self.json = False
        self.netns: str | None = None
        self.verbose = False
        self.debug = False
        self.dry_run = False
        # Whether the command has printed its document.
        self.told = False


settings = Settings()
