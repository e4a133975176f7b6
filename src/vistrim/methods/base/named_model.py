"""Models that a method needs beside the one it runs on, given by name."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn


class ModelLoader(Protocol):
    """Loads a model that a method needs beside the one it runs on; as text it is that model's name."""

    def __call__(self, device: str, dtype: torch.dtype) -> nn.Module:
        """Load it to a device, in a number type; the same call gives the same model again."""


@dataclass(frozen=True)
class NamedModel:
    """A model by name, loaded when it is first asked for, once for each device and number type.

    Attributes
    ----------
    name : str
        As `vistrim.load` takes it.
    """

    name: str
    _loaded: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, device: str, dtype: torch.dtype) -> Any:
        """Load the model; see `vistrim.load` for what is raised."""
        # transformers is imported when a model is loaded, not when its name is read.
        from vistrim.loading import load

        if (device, dtype) not in self._loaded:
            self._loaded[device, dtype], _ = load(self.name, dtype=dtype, device=device)
        return self._loaded[device, dtype]

    def __str__(self) -> str:
        return self.name
