"""Figures as PNG. They need matplotlib (the extra `figures`)."""

import importlib.util
import io
from typing import Any


def missing() -> str | None:
    """Why there can be no figure; None if there can."""
    if importlib.util.find_spec("matplotlib"):
        return None
    return "there is no figure: matplotlib is not installed (pip install 'torchdnc[figures]')"


def png(figure: Any) -> bytes:
    """A figure of matplotlib."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    return data.getvalue()
