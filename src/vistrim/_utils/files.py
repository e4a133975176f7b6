"""Files that a kill leaves whole: text and tensors."""

import os
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_whole(path: Path, text: str) -> None:
    """Write a text file; a kill leaves the old one or the new one, never a part."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def save_whole(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; a kill leaves the old one or the new one, never a part."""
    partial = path.with_name(f"{path.name}.partial")
    save_file(tensors, partial, metadata)
    os.replace(partial, path)
