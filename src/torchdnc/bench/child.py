"""What runs in a process of its own; see `fresh`. Nothing else imports this module."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torchdnc.bench import memory, sparse, start

CHILDREN: dict[str, Callable[..., Any]] = {"memory": memory.child, "start": start.child, **sparse.CHILDREN}


def main(children: Mapping[str, Callable[..., Any]]) -> None:
    """Calls the function named on the command line with the arguments there, and prints its answer as JSON."""
    name, arguments = sys.argv[1:]
    print(json.dumps(children[name](**json.loads(arguments))))
