"""A model that cannot be trimmed, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers


@dataclass(frozen=True)
class Refused:
    """A class of models that cannot be trimmed.

    Attributes
    ----------
    config : callable
        Makes the config of a tiny model of it.
    reason : str
        Why, in one line.
    architecture : str or None
        The class, where the automatic choice does not find it.
    """

    config: Callable[[], Any]
    reason: str
    architecture: str | None = None

    def build(self) -> Any:
        """A tiny model with random weights."""
        torch.manual_seed(0)
        make = transformers.AutoModelForImageTextToText.from_config
        if self.architecture is not None:
            make = getattr(transformers, self.architecture)
        return make(self.config()).eval()
