"""What differs between model families, one small file each, and the discovery that refuses the rest early."""

from vistrim.architectures.discovery import discover
from vistrim.architectures.spec import ModelSpec

__all__ = ["ModelSpec", "discover"]
