"""Paired timing: generations of several sides in turn, so that drift of the machine's speed affects all alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, TypeVar

import torch

from vistrim.benchmark.marks import mark_times
from vistrim.benchmark.peak import watch_peak
from vistrim.engine import ModelSpec
from vistrim.engine.report.trim_report import TrimReport
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
        Vision tower and projector. 0 in a model without a separate method for them (``get_image_features``,
        ``get_video_features``); encoding is then part of the prefill.
    first_token : float
        From the call of ``generate`` to its first token.
    steps : list of float
        Time of each later token.
    total : float
        The whole call.
    """

    encode: float
    first_token: float
    steps: list[float]
    total: float

    @property
    def prefill(self) -> float:
        """From the encoded images to the first token, including the selection of tokens."""
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
        Times of its phases.
    output : Tensor or ModelOutput
        Output of ``generate``.
    report : TrimReport or None
        Report of the trimmed run; None for the untouched model.
    peak_bytes : int or None
        Peak memory beyond the memory held before; None if the platform does not report it.
    """

    times: Times
    output: Any
    report: TrimReport | None
    peak_bytes: int | None


def in_turn(run: Callable[[str, int], T], labels: Sequence[str], rounds: Iterable[int]) -> Iterator[tuple[int, str, T]]:
    """Run every side once in each round, in an order that rotates from round to round.

    Rotation keeps one side from always being first, after the pause between rounds.

    Parameters
    ----------
    run : callable
        Called with a side's label and the number of the round.
    labels : sequence of str
        Labels of all sides.
    rounds : iterable of int
        Numbers of the rounds; the side with this number, modulo the number of sides, is first.

    Yields
    ------
    round : int
    label : str
    result
        Return value of ``run``.
    """
    for number in rounds:
        first = number % len(labels)
        for label in (*labels[first:], *labels[:first]):
            yield number, label, run(label, number)


def ratios(before: Sequence[float | None], after: Sequence[float | None]) -> tuple[float, ...]:
    """Ratio of both times in each round; rounds in which a side has no time are left out."""
    return tuple(a / b for a, b in zip(before, after, strict=True) if a and b)


def median_or_none(values: Iterable[float | None]) -> float | None:
    """Median of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def time_generation(
    model: Any, spec: ModelSpec, method: Method | None, inputs: Mapping[str, Any], **generate: Any
) -> Timed:
    """Generate once, and time each phase.

    Parameters
    ----------
    model : PreTrainedModel
        The model, not being trimmed.
    spec : ModelSpec
        Its description by `vistrim.engine.describe`.
    method : Method or None
        Method to trim with; None for the untouched model.
    inputs : mapping
        Processor output.
    **generate
        Further arguments of ``generate``.

    Returns
    -------
    Timed
        Times, taken at the start and end of the call, at the start and end of encoding, and after each forward pass of
        the model.

    Notes
    -----
    On a single CUDA device, times are taken by events on its stream. Otherwise, the devices are synchronized at every
    mark.
    """
    devices = tuple({parameter.device for parameter in model.parameters()})
    # Model and engine refer to each other: free the memory of the previous run now instead of during this run.
    gc.collect()
    with trim(model, method) if method is not None else nullcontext() as trimmed:
        peak = watch_peak(devices)
        times, output = _timed(model, spec, devices, {**inputs, **generate})
        peak_bytes = peak()
    return Timed(times, output, trimmed.report if trimmed is not None else None, peak_bytes)


def _timed(
    model: Any, spec: ModelSpec, devices: Sequence[torch.device], arguments: dict[str, Any]
) -> tuple[Times, Any]:
    with mark_times(model, spec, devices) as marks:
        output = model.generate(**arguments)
        ended = marks.timer.now()
    seconds = marks.timer.seconds
    times = Times(
        encode=marks.encode_seconds,
        # If a guide model answered alone, the model has not run.
        first_token=seconds(marks.began, marks.tokens[0] if marks.tokens else ended),
        steps=[seconds(earlier, later) for earlier, later in pairwise(marks.tokens)],
        total=seconds(marks.began, ended),
    )
    return times, output
