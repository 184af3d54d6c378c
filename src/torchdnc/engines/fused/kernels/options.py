"""How every kernel is compiled."""

from typing import Any, Final

ENTRY: Final[dict[str, Any]] = {"error_model": "numpy", "nogil": True, "_nrt": False, "no_cfunc_wrapper": True}
"""As written, in the order as written, to be called from Python. Nothing is allocated, so that nothing counts
references, which took a third of the time of a small step."""

EXACT: Final[dict[str, Any]] = ENTRY | {"no_cpython_wrapper": True}
"""The same, to be called from compiled code only."""

INLINED: Final[dict[str, Any]] = EXACT | {"inline": "always"}
"""For functions of one or two lines, and for those called in one or two places: numba would generate code for each, and
once more for whatever calls it."""

BODY: Final[dict[str, Any]] = EXACT | {"forceinline": True}
"""For bodies of loops: called for whole vectors, whose masks then fold away, and once more for what is left."""
