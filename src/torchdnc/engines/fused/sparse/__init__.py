"""The fused engine of the sparse memory: a whole sequence as one function of autograd, on rows changed in place.

Forward writes what each step read on the tape, so that backward needs no memory as it was: it goes through the steps
with the gradients of the words that the call came to, and leaves the rows alone.
"""

from torchdnc.engines.fused.sparse.function import run

__all__ = ["run"]
