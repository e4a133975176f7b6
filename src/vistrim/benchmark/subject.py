"""What is measured: a model, and the prompts that it is given."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel


@dataclass(frozen=True)
class Wanted:
    """What a benchmark is asked to measure.

    Attributes
    ----------
    model : str
        A named shape (made with random weights), a reference model, a local directory or a Hugging Face id.
    layers, hidden : int or None
        Decoder layers and width of a named shape; None: those of the real model.
    distinct_layers : int or None
        Decoder layers with weights of their own; the others use the same tensors again, in turn, so that a model
        computes all of its layers in less memory. None: all of them.
    batch : int
        Samples per generation, all alike.
    visual_tokens : int or None
        Per sample; None: what one picture of usual size makes.
    text_tokens : int
        All other tokens of each prompt.
    new_tokens : int
        Tokens generated per sample.
    dtype : str
        Name of the number type of weights and activations, or "auto".
    attn : str or None
        Attention kernel: sdpa, eager, flash_attention_2, ...; None: what transformers takes for this model.
    device : str
        Name of the device, or "auto".
    """

    model: str
    layers: int | None = None
    hidden: int | None = None
    distinct_layers: int | None = None
    batch: int = 1
    visual_tokens: int | None = None
    text_tokens: int = 64
    new_tokens: int = 32
    dtype: str = "auto"
    attn: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode, and the arguments of its ``generate``.

    Attributes
    ----------
    model : PreTrainedModel
        On its device.
    inputs : dict
        Ids, pixels and what else ``generate`` needs for the whole batch, on the model's device.
    visual_tokens, text_tokens : int
        Per sample, as they really are.
    weight_bytes : int
        Bytes of weights that a decoding step reads: decoder layers (those that share tensors count each time), final
        norm and output head. All experts of a mixture count, of which a step at batch 1 reads a few: the limit of
        decoding is then too low.
    settings : dict
        What distinguishes this subject from others, as plain Python objects for ``results.json``.
    """

    model: PreTrainedModel
    inputs: dict[str, Any]
    visual_tokens: int
    text_tokens: int
    weight_bytes: int
    settings: dict[str, Any]
