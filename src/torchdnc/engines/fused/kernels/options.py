"""How every kernel is compiled."""

from typing import Any, Final

EXACT: Final[dict[str, Any]] = {"error_model": "numpy", "nogil": True, "_nrt": False}
"""As written, in the order as written. Nothing is allocated, so that nothing counts references, which took a third of
the time of a small step."""

INLINED: Final[dict[str, Any]] = EXACT | {"inline": "always"}
"""For functions called in one place: numba would generate code for each, and once more for whatever calls it."""

BODY: Final[dict[str, Any]] = EXACT | {"forceinline": True}
"""For bodies of loops: called for whole vectors, whose masks then fold away, and once more for what is left."""
