"""What one thread is doing with a model right now."""

from __future__ import annotations

import threading

from vistrim.engine.forward import Call, Forward
from vistrim.engine.generation import Generation
from vistrim.engine.prompt import PromptInputs
from vistrim.engine.vision import VisionRecord


class ThreadState(threading.local):
    """Set by the hooks of a forward pass and of ``generate``; another thread sees its own."""

    generation: Generation | None = None
    head_call: Call | None = None
    inputs: PromptInputs | None = None
    vision: VisionRecord | None = None
    forward: Forward | None = None

    def find_vision(self) -> VisionRecord | None:
        """Where to note what the vision tower does in this thread, or to look it up."""
        return self.vision or (self.generation.vision if self.generation is not None else None)
