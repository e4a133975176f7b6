"""SmolLM2-135M-Instruct, the base of ``reference-lm``, dequantized from a GGUF file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from vistrim.reference_lm import BASE_DISTRIBUTION, BASE_SHA256, read_base


def load_base(gguf: Path) -> tuple[Any, Any]:
    """Load the model (float32, CPU) and the tokenizer.

    Raises
    ------
    ValueError
        If it is a different file, because trained weights are valid only for one base.
    """
    if hashlib.sha256(gguf.read_bytes()).hexdigest() != BASE_SHA256:
        raise ValueError(f"{gguf} is not the base of reference-lm: use the file in the package {BASE_DISTRIBUTION}")
    return read_base(gguf)
