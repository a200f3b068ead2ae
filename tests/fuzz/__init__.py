"""Object files broken on purpose: what reads them answers, in time, within its memory."""
