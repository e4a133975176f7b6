"""Writing trained weights as a stock checkpoint, and going on from one."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from vistrim.reference.learner import Learner

#: What only training needs (heads, ideal positions), beside the model's own files.
TRAINING_FILE = "training.safetensors"


def export(learner: Learner, processor: LlavaProcessor, folder: Path) -> None:
    """Write model (bf16), processor and training helpers with ``save_pretrained``.

    Parameters
    ----------
    learner : Learner
        Left as it is: a copy is written.
    processor : LlavaProcessor
    folder : Path
        Made where it is missing; its files are replaced.
    """
    export_model(learner.model, processor, folder)
    helpers = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in learner.state_dict().items()
        if not name.startswith("model.")
    }
    save_file(helpers, folder / TRAINING_FILE)


def export_model(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write a copy of a model (bf16) and its processor with ``save_pretrained``."""
    depth = len(model.model.language_model.layers)
    used, model.config.text_config.num_hidden_layers = model.config.text_config.num_hidden_layers, depth
    state = {name: value.detach().to("cpu", torch.bfloat16) for name, value in model.state_dict().items()}
    written = LlavaForConditionalGeneration(model.config).to(torch.bfloat16)
    written.load_state_dict(state)
    written.generation_config = model.generation_config
    written.save_pretrained(folder)
    # Stored in bf16 for size, loaded in fp32: so small a model gains nothing from bf16, and on many CPUs it loses.
    written.config.dtype = torch.float32
    written.config.save_pretrained(folder)
    model.config.text_config.num_hidden_layers = used
    processor.save_pretrained(folder)


def load_learner(folder: Path, processor: LlavaProcessor) -> Learner:
    """A learner with exported weights, in fp32, ready to be trained further.

    Parameters
    ----------
    folder : Path
    processor : LlavaProcessor
        Of the training to come: words that it has beyond the exported ones get new embeddings.

    Raises
    ------
    FileNotFoundError
        If the folder lacks the training helpers.
    """
    if not (folder / TRAINING_FILE).exists():
        raise FileNotFoundError(f"{folder / TRAINING_FILE} is missing: training can only go on from exported weights")
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    if len(processor.tokenizer) > model.config.text_config.vocab_size:
        model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    learner = Learner(model, processor.tokenizer)
    helpers = {name: value.float() for name, value in load_file(folder / TRAINING_FILE).items()}
    learner.load_state_dict(helpers, strict=False)
    return learner
