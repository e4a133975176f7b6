"""Times of one generation: when images were encoded, and when each token was ready."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from vistrim.engine import ModelSpec
from vistrim.engine.hooks import Hooks
from vistrim.engine.report.timing import Moment, Timer
from vistrim.engine.wrappers import without_adapter


class Marks:
    """Time marks of one generation.

    Attributes
    ----------
    timer : Timer
        Takes the times.
    began : Moment
        The beginning of the generation.
    tokens : list of Moment
        One after each forward pass of the model.
    encodings : list of (Moment, Moment)
        Start and end of each encoding of images or videos.
    """

    def __init__(self, timer: Timer) -> None:
        self.timer, self.began, self._encoding = timer, timer.now(), False
        self.tokens: list[Moment] = []
        self.encodings: list[tuple[Moment, Moment]] = []

    @property
    def encode_seconds(self) -> float:
        """Time of all encodings."""
        return sum(self.timer.seconds(*piece) for piece in self.encodings)

    def note_token(self, *_: Any) -> None:
        """Forward hook of the model: note the time of a token."""
        self.tokens.append(self.timer.now())

    def around(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap an encoder so that its times are noted."""

        # `generate` inspects the signature to choose the arguments.
        @functools.wraps(encode)
        def timed(*args: Any, **kwargs: Any) -> Any:
            # The encoder of videos may call that of images.
            if self._encoding:
                return encode(*args, **kwargs)
            self._encoding = True
            began = self.timer.now()
            output = encode(*args, **kwargs)
            self.encodings.append((began, self.timer.now()))
            self._encoding = False
            return output

        return timed


@contextmanager
def mark_times(model: Any, spec: ModelSpec, devices: Sequence[torch.device]) -> Iterator[Marks]:
    """Take the times of a generation in a ``with`` statement.

    Inside a trimming context, the engine's work on the images counts as encoding.

    Parameters
    ----------
    model : PreTrainedModel
        The model.
    spec : ModelSpec
        Its description by `vistrim.engine.describe`.
    devices : sequence of torch.device
        All devices that it runs on.

    Yields
    ------
    Marks
    """
    marks, hooks = Marks(Timer(devices)), Hooks()
    try:
        hooks.keep(without_adapter(model).register_forward_hook(marks.note_token))
        for modality in spec.visual_token_ids:
            name = f"get_{modality}_features"
            if hasattr(spec.base, name):
                hooks.shadow(spec.base, name, marks.around(getattr(spec.base, name)))
        yield marks
    finally:
        hooks.remove()
