"""Writing trained weights as a stock checkpoint, and going on from one."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from training.reference.learner import Learner
from vistrim._utils.files import save_whole


def export(learner: Learner, processor: LlavaProcessor, folder: Path, state: Path) -> None:
    """Write model (bf16) and processor as a stock checkpoint, and apart from it what only training needs.

    Parameters
    ----------
    learner : Learner
        Left as it is: a copy is written.
    processor : LlavaProcessor
    folder : Path
        Made where it is missing; its files are replaced.
    state : Path
        File of the training state: heads and ideal positions.
    """
    export_model(learner.model, processor, folder)
    helpers = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in learner.state_dict().items()
        if not name.startswith("model.")
    }
    save_whole(state, helpers)


def export_model(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write a copy of a model (bf16) and its processor, with the names that LLaVA's weights have on the Hub."""
    depth = len(model.model.language_model.layers)
    used, model.config.text_config.num_hidden_layers = model.config.text_config.num_hidden_layers, depth
    state = {name: value.detach().to("cpu", torch.bfloat16) for name, value in model.state_dict().items()}
    written = LlavaForConditionalGeneration(model.config).to(torch.bfloat16)
    written.load_state_dict(state)
    written.generation_config = model.generation_config
    written.save_pretrained(folder)
    weights = folder / "model.safetensors"
    save_whole(weights, {_hub_name(name): value for name, value in load_file(weights).items()}, {"format": "pt"})
    # Stored in bf16 for size, loaded in fp32: so small a model gains nothing from bf16, and on many CPUs it loses.
    written.config.dtype = torch.float32
    written.config.save_pretrained(folder)
    model.config.text_config.num_hidden_layers = used
    processor.save_pretrained(folder)


def _hub_name(name: str) -> str:
    """A weight's name in LLaVA checkpoints, by which other tools know it; transformers leaves a level of it out."""
    return re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)


def load_learner(folder: Path, processor: LlavaProcessor, state: Path | None = None) -> Learner:
    """A learner with exported weights, in fp32, ready to be trained further.

    Parameters
    ----------
    folder : Path
    processor : LlavaProcessor
        Of the training to come: words that it has beyond the exported ones get new embeddings.
    state : Path, optional
        The exported training state. None: heads and ideal positions are new.
    """
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    if len(processor.tokenizer) > model.config.text_config.vocab_size:
        model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    learner = Learner(model, processor.tokenizer)
    if state is not None:
        learner.load_state_dict({name: value.float() for name, value in load_file(state).items()}, strict=False)
    return learner
