"""Export of trained weights as a stock checkpoint, and loading of a checkpoint for further training."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from training.reference.learner import Learner
from vistrim._utils.files import save_whole


def export(learner: Learner, processor: LlavaProcessor, folder: Path, state: Path) -> None:
    """Write model (bfloat16) and processor as a stock checkpoint, and the training state to a separate file.

    Parameters
    ----------
    learner : Learner
        Not modified: a copy is written.
    processor : LlavaProcessor
        The processor.
    folder : Path
        Created if it does not exist. Existing files are replaced.
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
    """Write a copy of a model (bfloat16) and its processor, with the weight names of LLaVA checkpoints on the Hub."""
    depth = len(model.model.language_model.layers)
    used, model.config.text_config.num_hidden_layers = model.config.text_config.num_hidden_layers, depth
    state = {name: value.detach().to("cpu", torch.bfloat16) for name, value in model.state_dict().items()}
    written = LlavaForConditionalGeneration(model.config).to(torch.bfloat16)
    written.load_state_dict(state)
    written.generation_config = model.generation_config
    written.save_pretrained(folder)
    weights = folder / "model.safetensors"
    save_whole(weights, {_hub_name(name): value for name, value in load_file(weights).items()}, {"format": "pt"})
    # Stored in bfloat16 to save space, loaded in float32, because bfloat16 is not faster for such a small model.
    written.config.dtype = torch.float32
    written.config.save_pretrained(folder)
    model.config.text_config.num_hidden_layers = used
    processor.save_pretrained(folder)


def _hub_name(name: str) -> str:
    """Return the name of a weight in LLaVA checkpoints. In transformers, the names have one level less."""
    return re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)


def load_learner(folder: Path, processor: LlavaProcessor, state: Path | None = None) -> Learner:
    """Create a learner with exported weights in float32, for further training.

    Parameters
    ----------
    folder : Path
    processor : LlavaProcessor
        Processor for the further training. Words that the exported model does not have get new embeddings.
    state : Path, optional
        The exported training state. None: heads and ideal positions are initialized.
    """
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    if len(processor.tokenizer) > model.config.text_config.vocab_size:
        model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    learner = Learner(model, processor.tokenizer)
    if state is not None:
        learner.load_state_dict({name: value.float() for name, value in load_file(state).items()}, strict=False)
    return learner
