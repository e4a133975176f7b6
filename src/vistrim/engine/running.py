"""State of a trimmed model: running calls, the state of each thread, and recorders of running generations."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from vistrim.engine.attention.look_ahead import ProjectedKeys
from vistrim.engine.generation import Generation
from vistrim.engine.hooks import Call, NotCopied
from vistrim.engine.inputs.encodings import Encodings
from vistrim.engine.inputs.prompt import PromptInputs
from vistrim.engine.inputs.tower import TowerRecord
from vistrim.engine.passes.forward import Forward
from vistrim.engine.report.recorder import Recorder


class RunningCalls:
    """Counts the running calls of all threads.

    Parameters
    ----------
    clear : callable
        Called when no call is running and no further calls are admitted.
    """

    def __init__(self, clear: Callable[[], None]) -> None:
        self._clear = clear
        # Reentrant, because a signal handler may detach in the middle of a call.
        self._lock = threading.RLock()
        self._open = False
        self._running = 0

    @property
    def is_open(self) -> bool:
        """Whether calls that begin now are admitted."""
        return self._open

    def open(self) -> None:
        """Admit calls from now on."""
        with self._lock:
            self._open = True

    def close(self) -> None:
        """Admit no further calls."""
        with self._lock:
            self._open = False
            self._clear_if_over()

    def admit(self) -> bool:
        """Begin a call. Returns whether it is trimmed. If so, it must `leave`."""
        with self._lock:
            self._running += self._open
            return self._open

    def leave(self) -> None:
        """End an admitted call."""
        with self._lock:
            self._running -= 1
            self._clear_if_over()

    def _clear_if_over(self) -> None:
        if not self._open and not self._running:
            self._clear()


class ThreadState(NotCopied, threading.local):
    """State of one thread, set by the hooks of forward passes and of ``generate``.

    Attributes
    ----------
    inside : str or None
        The outermost admitted call of this thread. None: no call is running.
    """

    inside: str | None = None
    generation: Generation | None = None
    head_call: Call | None = None
    inputs: PromptInputs | None = None
    encodings: Encodings | None = None
    forward: Forward | None = None
    answer_from: Tensor | None = None

    def generation_of(self, cache: Cache | None) -> Generation | None:
        """Return the running generation if a forward pass with this cache belongs to it."""
        generation = self.generation
        if generation is None or (cache is not None and not generation.caches):
            return None
        if generation.cache is not None and cache is not generation.cache:
            return None
        return generation

    def find_encodings(self) -> Encodings | None:
        """Return the record of the images encoded in this thread."""
        return self.encodings or (self.generation.encodings if self.generation is not None else None)

    def find_vision(self) -> TowerRecord | None:
        """Return the record of the vision tower in this thread."""
        found = self.find_encodings()
        return found.vision if found is not None else None

    def find_projected(self) -> ProjectedKeys | None:
        """Return the keys that the forward pass of this thread has projected ahead."""
        return self.forward.projected if self.forward is not None else None


class RunningRecorders:
    """Recorders of running generations.

    Parameters
    ----------
    make : callable
        Creates a recorder for a device.
    """

    def __init__(self, make: Callable[[torch.device], Recorder]) -> None:
        self._make = make
        self._by_cache: weakref.WeakKeyDictionary[Cache, Recorder] = weakref.WeakKeyDictionary()

    def of(self, generation: Generation | None, embeddings: Tensor, cache: Cache | None) -> tuple[Recorder, bool]:
        """Return the recorder of the generation that a forward pass belongs to, and whether it is new.

        Parameters
        ----------
        generation : Generation or None
            The call of ``generate``. None: a forward pass outside of it.
        embeddings : Tensor
            Inputs of the decoder: ``[batch, tokens, hidden]``, or token ids ``[batch, tokens]``.
        cache : Cache or None
            The cache of the pass.
        """
        if generation is not None:
            generation.cache = cache
            found = generation.recorder
        else:
            # A generation loop of the user is identified by its cache.
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
