"""A process that compiles the kernels and one that finds them compiled give the same bits: a resume depends on it.

Their arrays lie elsewhere in memory, and sums whose order depended on that would differ in their last digits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import hashlib, torch
from torch.utils import _pytree as pytree
from torchdnc import DNC, MemoryOptions
torch.set_num_threads(1)
options = MemoryOptions(skip_unwritten=True, deallocation=True, masking=True)
for others in ({}, {"options": options, "interface_norm": True, "bidirectional": True}):
    torch.manual_seed(0)
    model = DNC(5, 8, 3, memory_size=4, word_size=4, engine="fused", **others)
    outputs, state = model(torch.randn(6, 4, 5))
    outputs.square().sum().backward()
    tensors = [outputs, *pytree.tree_leaves(state.memory), *(parameter.grad for parameter in model.parameters())]
    print(hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest())
"""


def test_compiling_changes_no_bit(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "TORCHDNC_SHAPE_CHECKS": "0"}
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout != ""
