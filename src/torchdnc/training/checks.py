"""Checks of settings: one sentence that names the setting, what was expected and what came."""

import math
from collections.abc import Iterable


def check_number(name: str, value: float | None, *, above: float = -math.inf) -> None:
    """Raise ValueError unless the value is None or a finite number above the bound."""
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not above < value < math.inf:
        bound = f" above {above}" if above > -math.inf else ""
        raise ValueError(f"{name} must be a finite number{bound}, got {value!r}")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
