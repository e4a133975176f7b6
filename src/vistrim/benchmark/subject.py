"""The subject of a benchmark: a model and its prompts."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel


@dataclass(frozen=True)
class Wanted:
    """Request for the subject of a benchmark.

    Attributes
    ----------
    model : str
        A named shape (with random weights), a reference model, a local directory or a Hugging Face id.
    layers, hidden : int or None
        Decoder layers and hidden size of a named shape; None: those of the real model.
    distinct_layers : int or None
        Decoder layers with their own weights; the others share these tensors, in turn, so that a model computes all of
        its layers in less memory. None: all of them.
    batch : int
        Samples per generation, all of the same size.
    visual_tokens : int or None
        Visual tokens per sample; None: those of one image of default size.
    text_tokens : int
        All other tokens of each prompt.
    new_tokens : int
        Tokens generated per sample.
    dtype : str
        Name of the dtype of weights and activations, or "auto".
    attn : str or None
        Attention kernel: sdpa, eager, flash_attention_2, ...; None: the default of transformers for this model.
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
        The model, on its device.
    inputs : dict
        Ids, pixels and other arguments of ``generate`` for the whole batch, on the model's device.
    visual_tokens, text_tokens : int
        Actual numbers of tokens per sample.
    weight_bytes : int
        Bytes of weights that a decoding step reads: decoder layers (those that share tensors count each time), final
        norm and output head. All experts of a mixture count, although a step at batch 1 reads only a few of them; the
        speed-up bound of decoding is then too low.
    settings : dict
        Values that distinguish this subject from others, as plain Python objects for ``results.json``.
    """

    model: PreTrainedModel
    inputs: dict[str, Any]
    visual_tokens: int
    text_tokens: int
    weight_bytes: int
    settings: dict[str, Any]
