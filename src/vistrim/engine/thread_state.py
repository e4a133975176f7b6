"""What one thread is doing with a model right now."""

from __future__ import annotations

import threading

from torch import Tensor
from transformers.cache_utils import Cache

from vistrim.engine.generation import Generation
from vistrim.engine.hooks import Call, NotCopied
from vistrim.engine.inputs.encodings import Encodings
from vistrim.engine.inputs.prompt import PromptInputs
from vistrim.engine.inputs.tower import TowerRecord
from vistrim.engine.passes.forward import Forward


class ThreadState(NotCopied, threading.local):
    """Set by the hooks of a forward pass and of ``generate``; another thread sees its own.

    Attributes
    ----------
    inside : str or None
        What this thread is running of the trimmed model: the outermost call that was admitted.
    """

    inside: str | None = None
    generation: Generation | None = None
    head_call: Call | None = None
    inputs: PromptInputs | None = None
    encodings: Encodings | None = None
    forward: Forward | None = None
    answer_from: Tensor | None = None

    def generation_of(self, cache: Cache | None) -> Generation | None:
        """Return the running generation, unless a forward pass with this cache is none of its own."""
        generation = self.generation
        if generation is None or (cache is not None and not generation.caches):
            return None
        if generation.cache is not None and cache is not generation.cache:
            return None
        return generation

    def find_encodings(self) -> Encodings | None:
        """Where to note what becomes of images in this thread, or to look it up."""
        return self.encodings or (self.generation.encodings if self.generation is not None else None)

    def find_vision(self) -> TowerRecord | None:
        """The same for what the vision tower does."""
        found = self.find_encodings()
        return found.vision if found is not None else None
