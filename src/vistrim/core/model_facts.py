"""What a method may know about the model that it runs on."""

from dataclasses import dataclass
from pathlib import Path

import torch

from vistrim.core.costs import DecoderShape
from vistrim.core.layout import Grid


@dataclass(frozen=True)
class ModelFacts:
    """What a method may know about the model that it is to run on.

    Attributes
    ----------
    name : str
        The checkpoint's name without owner or folders, such as "llava-1.5-7b-hf"; empty if the model has none.
    folder : Path or None
        The checkpoint's folder, if it came from one on this machine.
    decoder : DecoderShape
        Sizes of the decoder.
    grid : tuple of int or None
        Rows and columns of the visual tokens of one image, where all images have the same.
    rope_axes : int
        1, or 3 for M-RoPE, whose positions have a time, a row and a column.
    device : str
        Where it takes its inputs, such as "cpu" or "cuda:0".
    dtype : torch.dtype
        Number type of its embeddings.
    """

    name: str
    folder: Path | None
    decoder: DecoderShape
    grid: Grid | None
    rope_axes: int = 1
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
