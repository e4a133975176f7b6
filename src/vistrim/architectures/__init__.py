"""Differences between model families, one small file each, and discovery, which refuses unsupported models early."""

from vistrim.architectures.discovery import discover
from vistrim.architectures.spec import ModelSpec

__all__ = ["ModelSpec", "discover"]
