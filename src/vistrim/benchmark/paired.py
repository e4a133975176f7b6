"""Paired timing: generations of several sides in turn, so that a machine that gets slower or faster favors none."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, TypeVar

import torch

from vistrim.benchmark.peak import watch_peak
from vistrim.engine import ModelSpec
from vistrim.engine.hooks import Hooks
from vistrim.engine.report.timing import Moment, Timer
from vistrim.engine.report.trim_report import TrimReport
from vistrim.engine.wrappers import without_adapter
from vistrim.methods import Method
from vistrim.trimming import trim

T = TypeVar("T")

WARM_UP_TOKENS = 2
"""One from the prefill, one from a decoding step."""


@dataclass(frozen=True)
class Times:
    """Seconds of one generation.

    Attributes
    ----------
    encode : float
        Vision tower and projector; 0 in a model that has no method of its own for them (``get_image_features``,
        ``get_video_features``), whose encoding is then part of the prefill.
    first_token : float
        From the call of ``generate`` to its first token.
    steps : list of float
        Each later token.
    total : float
        The whole call.
    """

    encode: float
    first_token: float
    steps: list[float]
    total: float

    @property
    def prefill(self) -> float:
        """From the encoded images to the first token, the selection of tokens included."""
        return self.first_token - self.encode

    @property
    def step(self) -> float | None:
        """Mean of the decoding steps; None if there was none."""
        return sum(self.steps) / len(self.steps) if self.steps else None


@dataclass(frozen=True)
class Timed:
    """One generation.

    Attributes
    ----------
    times : Times
        How long it took.
    output : Tensor or ModelOutput
        What ``generate`` returned.
    report : TrimReport or None
        None of the untouched model.
    peak_bytes : int or None
        Most memory held beyond what was held before; None where the platform does not tell.
    """

    times: Times
    output: Any
    report: TrimReport | None
    peak_bytes: int | None


def in_turn(run: Callable[[str, int], T], labels: Sequence[str], rounds: Iterable[int]) -> Iterator[tuple[int, str, T]]:
    """Run every side once in each round, in an order that rotates from round to round.

    No side is always first, and so none always finds the machine as the pause between rounds has left it.

    Parameters
    ----------
    run : callable
        Given a side's label and the number of the round.
    labels : sequence of str
        Of all sides.
    rounds : iterable of int
        Numbers of the rounds; the side with this number, counted around, begins.

    Yields
    ------
    round : int
    label : str
    result
        What ``run`` returned.
    """
    for number in rounds:
        first = number % len(labels)
        for label in (*labels[first:], *labels[:first]):
            yield number, label, run(label, number)


def ratios(before: Sequence[float | None], after: Sequence[float | None]) -> tuple[float, ...]:
    """Ratio of both times in each round; without rounds in which a side took none."""
    return tuple(a / b for a, b in zip(before, after, strict=True) if a and b)


def median_or_none(values: Iterable[float | None]) -> float | None:
    """Median of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def time_generation(
    model: Any, spec: ModelSpec, method: Method | None, inputs: Mapping[str, Any], **generate: Any
) -> Timed:
    """Generate once, and tell how long each phase took.

    Parameters
    ----------
    model : PreTrainedModel
        Not being trimmed now.
    spec : ModelSpec
        What `vistrim.engine.describe` found in it.
    method : Method or None
        How to trim; None leaves the model alone.
    inputs : mapping
        What the processor made.
    **generate
        Further arguments of ``generate``.

    Returns
    -------
    Timed
        The marks: the call itself and its end; the encoding, from its begin to its end; and each forward pass of the
        model, once its logits are there.

    Notes
    -----
    On a single CUDA device, marks are events on its stream. Anywhere else the devices are waited for at every mark.
    """
    devices = tuple({parameter.device for parameter in model.parameters()})
    # Model and engine refer to each other: what the last run held goes now, not at some moment of this run.
    gc.collect()
    with trim(model, method) if method is not None else nullcontext() as trimmed:
        peak = watch_peak(devices)
        times, output = _timed(model, spec, devices, {**inputs, **generate})
        peak_bytes = peak()
    return Timed(times, output, trimmed.report if trimmed is not None else None, peak_bytes)


def _timed(
    model: Any, spec: ModelSpec, devices: Sequence[torch.device], arguments: dict[str, Any]
) -> tuple[Times, Any]:
    marks, hooks = _Marks(Timer(devices)), Hooks()
    try:
        hooks.keep(without_adapter(model).register_forward_hook(marks.note_token))
        # On top of what the engine has put there, whose work on the images counts as encoding.
        for modality in spec.visual_token_ids:
            name = f"get_{modality}_features"
            if hasattr(spec.base, name):
                hooks.shadow(spec.base, name, marks.around(getattr(spec.base, name)))
        began = marks.timer.now()
        output = model.generate(**arguments)
        ended = marks.timer.now()
    finally:
        hooks.remove()
    seconds = marks.timer.seconds
    times = Times(
        encode=sum(seconds(*piece) for piece in marks.encodings),
        # Where a guide has answered alone, the model has run for no token.
        first_token=seconds(began, marks.tokens[0] if marks.tokens else ended),
        steps=[seconds(earlier, later) for earlier, later in pairwise(marks.tokens)],
        total=seconds(began, ended),
    )
    return times, output


class _Marks:
    """Moments of one generation."""

    def __init__(self, timer: Timer) -> None:
        self.timer, self._encoding = timer, False
        self.tokens: list[Moment] = []
        self.encodings: list[tuple[Moment, Moment]] = []

    def note_token(self, *_: Any) -> None:
        """Note that the model has run for a token: a hook behind it."""
        self.tokens.append(self.timer.now())

    def around(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """Note how long an encoder works."""

        # `generate` reads from the signature what to give to it.
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
