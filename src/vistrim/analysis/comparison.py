"""The trimmed model against the untouched one, on the same inputs and with the same clocks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import torch

from vistrim.engine import describe
from vistrim.engine.releases import CACHE
from vistrim.engine.report.timing import clock
from vistrim.engine.report.trim_report import TrimReport
from vistrim.methods import Method
from vistrim.trimming import trim

WARM_UP_TOKENS = 2

Side = Literal["untouched", "trimmed"]


@dataclass(frozen=True)
class Measured:
    """One side of a comparison; times are medians over its runs.

    Attributes
    ----------
    tokens : list of int
        The generated tokens.
    prefill_seconds : float
        Wall time of the decoder's prefill; vision tower not included. 0 if a method's guide has answered alone.
    decode_seconds_per_token : float or None
        Mean wall time per decoding step; None if there was none.
    total_seconds : float
        Wall time of the whole ``generate``, vision tower included.
    kv_bytes : int
        Bytes of all keys and values at the end.
    """

    tokens: list[int]
    prefill_seconds: float
    decode_seconds_per_token: float | None
    total_seconds: float
    kv_bytes: int


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`.

    Attributes
    ----------
    untouched, trimmed : Measured
        Both sides.
    report : TrimReport
        Report of the trimmed run with the median prefill time.
    repeats : int
        Pairs of runs.
    total_speedup : float
        Untouched over trimmed time of the whole ``generate``, median over the pairs.
    prefill_speedup, decode_speedup : float or None
        The same for the prefill and per decoding step; None if a side had none.
    """

    untouched: Measured
    trimmed: Measured
    report: TrimReport
    repeats: int
    prefill_speedup: float | None
    decode_speedup: float | None
    total_speedup: float

    @property
    def same_answer(self) -> bool:
        """Whether both sides generated the same tokens."""
        return self.untouched.tokens == self.trimmed.tokens

    def to_dict(self) -> dict[str, Any]:
        """Everything but the report, as plain Python objects."""
        values = asdict(self) | {"same_answer": self.same_answer}
        del values["report"]
        return values


def compare(
    model: Any,
    inputs: Mapping[str, Any],
    method: Method,
    *,
    repeats: int = 3,
    streamer: Callable[[Side], Any] | None = None,
    **generate: Any,
) -> Comparison:
    """Generate with the untouched and with the trimmed model in turn, after one short untimed run of each.

    Parameters
    ----------
    model : PreTrainedModel
        A model that `vistrim.trim` takes, not being trimmed now.
    inputs : Mapping
        One sample, as the processor returns it, on the model's device.
    method : Method
        How to trim.
    repeats : int
        Pairs of runs.
    streamer : callable, optional
        Asked for a streamer for each side of the first pair; may return None.
    **generate
        Further arguments of ``model.generate``, such as ``max_new_tokens``.

    Returns
    -------
    Comparison

    Raises
    ------
    UnsupportedModelError, UnsupportedGenerationError
        If the model cannot be trimmed (this way).
    ValueError
        If the method's parameters do not fit the model, the inputs hold several samples or ``repeats`` is
        below 1.
    """
    if "input_ids" not in inputs or inputs["input_ids"].shape[0] != 1:
        raise ValueError("compare takes the input_ids of one sample: call it for each")
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: must be at least 1")
    short = generate | {"max_new_tokens": WARM_UP_TOKENS}
    _untouched(model, inputs, short)
    _trimmed(model, inputs, method, short)
    pairs, reports = [], []
    for repeat in range(repeats):
        ask = streamer if repeat == 0 and streamer is not None else _no_streamer
        untouched = _untouched(model, inputs, generate | {"streamer": ask("untouched")})
        trimmed, report = _trimmed(model, inputs, method, generate | {"streamer": ask("trimmed")})
        pairs.append((untouched, trimmed))
        reports.append(report)
    return Comparison(
        untouched=_medians([u for u, _ in pairs]),
        trimmed=_medians([t for _, t in pairs]),
        report=sorted(reports, key=lambda r: r.prefill_seconds)[(repeats - 1) // 2],
        repeats=repeats,
        prefill_speedup=_median_or_none([u.prefill_seconds / t.prefill_seconds for u, t in pairs if t.prefill_seconds]),
        decode_speedup=_median_or_none(
            [
                u.decode_seconds_per_token / t.decode_seconds_per_token
                for u, t in pairs
                if u.decode_seconds_per_token and t.decode_seconds_per_token
            ]
        ),
        total_speedup=median(u.total_seconds / t.total_seconds for u, t in pairs),
    )


def _no_streamer(side: Side) -> None:
    return None


def _untouched(model: Any, inputs: Mapping[str, Any], generate: dict[str, Any]) -> Measured:
    with _decoder_clock(model) as decoder:
        began = clock(model.device)
        output = model.generate(**inputs, **generate | {"return_dict_in_generate": True})
        ended = clock(model.device)
    tokens, cache = _new_tokens(output.sequences, inputs), output.get(CACHE)
    steps = len(tokens) - 1
    return Measured(
        tokens=tokens,
        prefill_seconds=decoder.prefill_ended - decoder.prefill_began,
        decode_seconds_per_token=(ended - decoder.prefill_ended) / steps if steps else None,
        total_seconds=ended - began,
        kv_bytes=sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) if cache is not None else 0,
    )


def _trimmed(
    model: Any, inputs: Mapping[str, Any], method: Method, generate: dict[str, Any]
) -> tuple[Measured, TrimReport]:
    with trim(model, method) as run:
        began = clock(model.device)
        sequences = model.generate(**inputs, **generate | {"return_dict_in_generate": False})
        ended = clock(model.device)
    report = run.report
    measured = Measured(
        tokens=_new_tokens(sequences, inputs),
        prefill_seconds=report.prefill_seconds,
        decode_seconds_per_token=report.decode_seconds_per_token,
        total_seconds=ended - began,
        kv_bytes=report.kv_bytes,
    )
    return measured, report


@dataclass
class _DecoderClock:
    prefill_began: float = 0.0
    prefill_ended: float = 0.0
    forwards: int = 0


@contextmanager
def _decoder_clock(model: Any) -> Iterator[_DecoderClock]:
    """Time the first forward pass of the decoder, and count them all."""
    times = _DecoderClock()

    def before(*_: Any) -> None:
        if times.forwards == 0:
            times.prefill_began = clock(model.device)

    def after(*_: Any) -> None:
        if times.forwards == 0:
            times.prefill_ended = clock(model.device)
        times.forwards += 1

    decoder = describe(model).decoder
    handles = (decoder.register_forward_pre_hook(before), decoder.register_forward_hook(after))
    try:
        yield times
    finally:
        for handle in handles:
            handle.remove()


def _new_tokens(sequences: torch.Tensor, inputs: Mapping[str, Any]) -> list[int]:
    return sequences[0, inputs["input_ids"].shape[1] :].tolist()


def _medians(runs: list[Measured]) -> Measured:
    return Measured(
        tokens=runs[0].tokens,
        prefill_seconds=median(r.prefill_seconds for r in runs),
        decode_seconds_per_token=_median_or_none(
            [r.decode_seconds_per_token for r in runs if r.decode_seconds_per_token is not None]
        ),
        total_seconds=median(r.total_seconds for r in runs),
        kv_bytes=runs[0].kv_bytes,
    )


def _median_or_none(values: list[float]) -> float | None:
    return median(values) if values else None
