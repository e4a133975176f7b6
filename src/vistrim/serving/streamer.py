"""The streamer of a batch."""

from collections.abc import Callable

from torch import Tensor
from transformers.generation.streamers import BaseStreamer


class BatchStreamer(BaseStreamer):
    """Calls a function after each step of a batch.

    Streamers of transformers accept a single row; ``generate`` itself passes the tokens of all of them. They
    are not used here: `vistrim.serving.stopping.RowStops` has passed them to the rows before. On MPS, ``generate``
    calls the streamer one step late, which delays the text but does not change it.

    Parameters
    ----------
    deliver : callable
        Sends what is new in all rows.
    """

    def __init__(self, deliver: Callable[[], None]) -> None:
        self._deliver = deliver
        self._is_prompt = True

    def put(self, value: Tensor) -> None:
        """Receive the prompt at first (``[batch, tokens]``), then one token per row (``[batch]``)."""
        if not self._is_prompt:
            self._deliver()
        self._is_prompt = False

    def end(self) -> None:
        """Receive the end of the generation."""
        self._deliver()
