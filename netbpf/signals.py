"""What quick commands need of the module ``signal``, without the enums of numbers that it makes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import (
        SIG_BLOCK,
        SIG_DFL,
        SIG_IGN,
        SIG_SETMASK,
        SIGINT,
        SIGTERM,
        default_int_handler,
        getsignal,
        pthread_sigmask,
        raise_signal,
        signal,
        sigwait,
    )
else:
    from _signal import (
        SIG_BLOCK,
        SIG_DFL,
        SIG_IGN,
        SIG_SETMASK,
        SIGINT,
        SIGTERM,
        default_int_handler,
        getsignal,
        pthread_sigmask,
        raise_signal,
        signal,
        sigwait,
    )

__all__ = [
    "SIGINT",
    "SIGTERM",
    "SIG_BLOCK",
    "SIG_DFL",
    "SIG_IGN",
    "SIG_SETMASK",
    "default_int_handler",
    "getsignal",
    "pthread_sigmask",
    "raise_signal",
    "signal",
    "sigwait",
]
