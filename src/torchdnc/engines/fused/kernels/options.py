"""How every kernel is compiled."""

from typing import Any, Final

EXACT: Final[dict[str, Any]] = {"error_model": "numpy", "nogil": True, "_nrt": False}
"""As written: a loop that runs in vector registers gives the same bits as one that does not. Which it is depends on
where its arrays happen to lie in memory, and a run must not."""

SUMMING: Final[dict[str, Any]] = EXACT | {"fastmath": {"reassoc", "contract", "nsz"}}
"""For functions that only sum, and store nothing: in any order, which is what vector registers need."""
