"""What the tests of the pipeline share."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a busy machine is no broken law
settings.load_profile("any machine")
