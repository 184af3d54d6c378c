"""Kernels of the sparse memory, over a whole sequence."""
