"""A folder as users have it: tiny model, tokenizer, image and video processor, and the family's processor class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers
from transformers.utils import is_torchvision_available

from tests.families.zoo import FAMILIES

CONTEXT = 8192
"""Tokens; descriptions are long where each letter is one."""


@dataclass(frozen=True)
class Checkpoint:
    """One family's.

    Attributes
    ----------
    family : str
        Whose tiny model of ``tests.families.zoo`` it is.
    processor : callable
        Makes the processor, with images that are few tokens whatever their size.
    adapt : callable, optional
        Writes into the model's config what the processor needs otherwise.
    needs_torchvision : bool
        Whether transformers' processor cannot be made without it.
    has_video : bool
        Whether the processor takes videos.
    """

    family: str
    processor: Callable[[], Any]
    adapt: Callable[[Any], None] = lambda config: None
    needs_torchvision: bool = True
    has_video: bool = False

    def save(self, folder: Path) -> Path:
        """Write it as ``save_pretrained`` does."""
        model = replace(FAMILIES[self.family], config=self._config).build()
        model.save_pretrained(folder)
        self.processor().save_pretrained(folder)
        return folder

    def _config(self) -> Any:
        config = FAMILIES[self.family].config()
        config.get_text_config().max_position_embeddings = CONTEXT
        self.adapt(config)
        return config


def image_processor(name: str, **settings: Any) -> Any:
    """Make an image processor of transformers: its own kind without torchvision."""
    return getattr(transformers, name if is_torchvision_available() else f"{name}Pil")(**settings)
