"""Facts about a model that methods may use."""

from dataclasses import dataclass
from pathlib import Path

import torch

from vistrim.core.costs import DecoderShape
from vistrim.core.layout import Grid


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model that a method may use.

    Attributes
    ----------
    name : str
        Name of the checkpoint without owner or folders, such as "llava-1.5-7b-hf". Empty if the model has none.
    folder : Path or None
        Local folder of the checkpoint, if it was loaded from one.
    decoder : DecoderShape
        Sizes of the decoder.
    grid : tuple of int or None
        Rows and columns of the visual tokens of one image, if all images have the same grid.
    rope_axes : int
        Number of axes of a RoPE position: 1, or 3 (time, row, column) for M-RoPE.
    device : str
        Device of the model's inputs, such as "cpu" or "cuda:0".
    dtype : torch.dtype
        Dtype of its embeddings.
    """

    name: str
    folder: Path | None
    decoder: DecoderShape
    grid: Grid | None
    rope_axes: int = 1
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
