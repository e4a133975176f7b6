"""What is running on a trimmed model: calls in all threads, each thread's state, and the recorders of generations."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from vistrim.engine.generation import Generation
from vistrim.engine.hooks import Call, NotCopied
from vistrim.engine.inputs.encodings import Encodings
from vistrim.engine.inputs.prompt import PromptInputs
from vistrim.engine.inputs.tower import TowerRecord
from vistrim.engine.passes.forward import Forward
from vistrim.engine.report.recorder import Recorder


class RunningCalls:
    """Calls that are running, in any thread.

    Parameters
    ----------
    clear : callable
        Called once no call is running and none will be admitted.
    """

    def __init__(self, clear: Callable[[], None]) -> None:
        self._clear = clear
        # Of the kind that a signal handler may take again, which detaches in the middle of a call.
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
        """Whether a call that begins is to be trimmed; then it has to `leave`."""
        with self._lock:
            self._running += self._open
            return self._open

    def leave(self) -> None:
        """Note the end of a call that was admitted."""
        with self._lock:
            self._running -= 1
            self._clear_if_over()

    def _clear_if_over(self) -> None:
        if not self._open and not self._running:
            self._clear()


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


class RunningRecorders:
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
