"""How every kernel is compiled."""

from typing import Any, Final

FAST: Final[dict[str, Any]] = {
    # Sums may be reordered, which is what lets them run in vector registers; NaN and infinity keep their meaning.
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
    "nogil": True,
}
EXACT: Final[dict[str, Any]] = FAST | {"fastmath": False}
