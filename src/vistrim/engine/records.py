"""Which recorder takes down a forward pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from vistrim.engine.generation import Generation
from vistrim.engine.report.recorder import Recorder


class Records:
    """The recorders of generations that are running.

    Parameters
    ----------
    make : callable
        Makes a recorder for a device.
    """

    def __init__(self, make: Callable[[torch.device], Recorder]) -> None:
        self._make = make
        self._by_cache: weakref.WeakKeyDictionary[Cache, Recorder] = weakref.WeakKeyDictionary()

    def of(self, generation: Generation | None, embeddings: Tensor, cache: Cache | None) -> tuple[Recorder, bool]:
        """Return the recorder of the generation that a forward pass belongs to, and whether it has just begun.

        Parameters
        ----------
        generation : Generation or None
            The call of ``generate``, if it is one.
        embeddings : Tensor
            ``[batch, tokens, hidden]``, or ids: what enters the decoder.
        cache : Cache or None
            The cache of the pass.
        """
        if generation is not None:
            generation.cache = cache
            found = generation.recorder
        else:
            # A loop written by hand: its cache tells which one.
            found = self._by_cache.get(cache) if cache is not None and embeddings.shape[1] == 1 else None
        if found is not None:
            return found, False
        recorder = self._make(embeddings.device)
        if generation is not None:
            recorder.guided = generation.guided
            generation.recorder = recorder
        elif cache is not None:
            self._by_cache[cache] = recorder
        return recorder, True
