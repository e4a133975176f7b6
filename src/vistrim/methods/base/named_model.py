"""Further models that a method needs, such as a guide model, given by name."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn


class ModelLoader(Protocol):
    """Loader of a further model that a method needs. ``str`` of a loader is the name of its model."""

    def __call__(self, device: str, dtype: torch.dtype) -> nn.Module:
        """Load the model.

        Parameters
        ----------
        device : str
            Device to load the model to.
        dtype : torch.dtype
            Dtype of its weights.

        Returns
        -------
        nn.Module
            The model. Calls with equal arguments return the same object.
        """


@dataclass(frozen=True)
class NamedModel:
    """A model by name, loaded at the first call, once for each device and dtype.

    Attributes
    ----------
    name : str
        Name or folder of the checkpoint, as for `vistrim.load`.
    """

    name: str
    _loaded: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, device: str, dtype: torch.dtype) -> Any:
        """Load the model.

        Parameters
        ----------
        device : str
            Device to load the model to.
        dtype : torch.dtype
            Dtype of its weights.

        Returns
        -------
        PreTrainedModel
            The model. Calls with equal arguments return the same object.

        Raises
        ------
        LoadError
            If the model cannot be loaded, see `vistrim.load`.
        """
        # Imported here, because reading the name of a model must not import transformers.
        from vistrim.loading import load

        if (device, dtype) not in self._loaded:
            self._loaded[device, dtype], _ = load(self.name, dtype=dtype, device=device)
        return self._loaded[device, dtype]

    def __str__(self) -> str:
        return self.name
