"""What the options that stand everywhere say, for the one command that runs."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Settings:
    """The options accepted before the noun and after the verb."""

    json: bool = False
    netns: str | None = None
    verbose: bool = False
    debug: bool = False
    dry_run: bool = False
    told: bool = False
    """Whether the command has printed its document."""

    def reset(self) -> None:
        """Back to what holds when nothing was said."""
        for field in fields(self):
            setattr(self, field.name, field.default)


settings = Settings()
