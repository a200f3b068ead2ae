"""Unit tests: what chance makes takes the time that a busy machine gives it."""

import hypothesis

hypothesis.settings.register_profile("netbpf", deadline=None, max_examples=30)
hypothesis.settings.load_profile("netbpf")
