"""Interception of the attention interface, and the kernels behind it."""
