"""Compiled loops over single rows of a batch. Nothing compiles until it is first called."""
