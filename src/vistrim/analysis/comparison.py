"""The trimmed model against the untouched one, on the same inputs and with the same clocks."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal, cast

from vistrim.benchmark.paired import WARM_UP_TOKENS, Timed, in_turn, median_or_none, ratios, time_generation
from vistrim.engine import describe
from vistrim.engine.releases import CACHE
from vistrim.engine.report.trim_report import TrimReport
from vistrim.engine.wrappers import without_adapter
from vistrim.methods import Method

WARM_UP = -1
"""Stands for the number of a round."""

Side = Literal["untouched", "trimmed"]


@dataclass(frozen=True)
class Measured:
    """One side of a comparison; times are medians over its runs.

    Attributes
    ----------
    tokens : list of int
        The generated tokens.
    prefill_seconds : float
        From the encoded images to the first token, a method's own work and its guide's included. 0 if a method's guide
        has answered alone.
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

    The order rotates: the trimmed model begins every second pair.

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
    spec = describe(without_adapter(model))
    sides: dict[Side, Method | None] = {"untouched": None, "trimmed": method}

    def run(label: str, number: int, **changed: Any) -> tuple[Measured, TrimReport | None]:
        side = cast(Side, label)
        shown = {"streamer": streamer(side)} if streamer is not None and number == 0 else {}
        # The report tells what the trimmed model holds, and a guide that may answer alone returns no dictionary.
        returns = {"return_dict_in_generate": side == "untouched"}
        timed = time_generation(model, spec, sides[side], inputs, **generate | shown | returns | changed)
        # Not the output: its cache would take memory from the next run.
        return _measured(timed, inputs), timed.report

    for side in sides:
        run(side, WARM_UP, max_new_tokens=WARM_UP_TOKENS)
    runs: dict[str, list[tuple[Measured, TrimReport | None]]] = {side: [] for side in sides}
    for _, label, found in in_turn(run, list(sides), range(repeats)):
        runs[label].append(found)
    untouched, trimmed = ([measured for measured, _ in runs[side]] for side in sides)

    def speedup(name: str) -> float | None:
        before, after = ([getattr(one, name) for one in side] for side in (untouched, trimmed))
        return median_or_none(ratios(before, after))

    middle = sorted(range(repeats), key=lambda i: trimmed[i].prefill_seconds)[(repeats - 1) // 2]
    report, total = runs["trimmed"][middle][1], speedup("total_seconds")
    assert report is not None
    assert total is not None
    return Comparison(
        untouched=_medians(untouched),
        trimmed=_medians(trimmed),
        report=report,
        repeats=repeats,
        prefill_speedup=speedup("prefill_seconds"),
        decode_speedup=speedup("decode_seconds_per_token"),
        total_speedup=total,
    )


def _measured(timed: Timed, inputs: Mapping[str, Any]) -> Measured:
    times, report, output = timed.times, timed.report, timed.output
    if report is None:
        cache = output.get(CACHE)
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) if cache is not None else 0
        output = output.sequences
    else:
        held = report.kv_bytes
    tokens = output[0, inputs["input_ids"].shape[1] :].tolist()
    alone = report is not None and all(report.exited)
    steps = 0 if alone else len(tokens) - 1
    return Measured(
        tokens=tokens,
        prefill_seconds=0.0 if alone else times.prefill,
        decode_seconds_per_token=(times.total - times.first_token) / steps if steps else None,
        total_seconds=times.total,
        kv_bytes=held,
    )


def _medians(runs: list[Measured]) -> Measured:
    return Measured(
        tokens=runs[0].tokens,
        prefill_seconds=median(run.prefill_seconds for run in runs),
        decode_seconds_per_token=median_or_none(run.decode_seconds_per_token for run in runs),
        total_seconds=median(run.total_seconds for run in runs),
        kv_bytes=runs[0].kv_bytes,
    )
