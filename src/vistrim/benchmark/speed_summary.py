"""From runs to rows: medians, and speed-ups next to their limits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.paired import median_or_none, ratios
from vistrim.benchmark.results import Cost, Row, Run, Speedup
from vistrim.benchmark.run_file import complete_rounds

PHASES: dict[str, Callable[[Run], float | None]] = {
    "encode": lambda run: run.encode_seconds,
    "prefill": lambda run: run.prefill_seconds,
    "first token": lambda run: run.first_token_seconds,
    "step": lambda run: run.step_mean,
    "total": lambda run: run.total_seconds,
}
"""Seconds of a run that are compared; None: there was no such phase."""


def summarize(runs: Iterable[Run], costs: Mapping[str, Cost]) -> list[Row]:
    """Sum up each method.

    Parameters
    ----------
    runs : iterable of Run
        Of any number of rounds; what belongs to an incomplete round does not count.
    costs : mapping
        By label, the untouched model's among them; a label without a cost is left out.

    Returns
    -------
    list of Row
        In the order of ``costs``; empty without a complete round. Speed-ups are medians of the ratios within each
        round: a machine that gets slower or faster from round to round does not distort them. The untouched model has
        none, and a phase that takes no time has none.
    """
    rounds = complete_rounds(runs, costs)
    if not rounds:
        return []
    return [_row(label, rounds, costs) for label in costs]


def _row(label: str, rounds: Sequence[Mapping[str, Run]], costs: Mapping[str, Cost]) -> Row:
    runs = [one[label] for one in rounds]
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    return Row(
        label=label,
        cost=costs[label],
        rounds=len(runs),
        encode=median(run.encode_seconds for run in runs),
        select=median(run.select_seconds for run in runs),
        prefill=median(run.prefill_seconds for run in runs),
        step=median_or_none(run.step_mean for run in runs),
        total=median(run.total_seconds for run in runs),
        peak_bytes=max(peaks, default=None),
        speedups={} if label == UNTOUCHED else _speedups(label, rounds, costs),
    )


def _speedups(label: str, rounds: Sequence[Mapping[str, Run]], costs: Mapping[str, Cost]) -> dict[str, Speedup]:
    full, own = costs[UNTOUCHED], costs[label]
    limits = {"prefill": full.prefill_flops / own.prefill_flops, "step": full.step_bytes / own.step_bytes}
    speedups = {}
    for phase, seconds in PHASES.items():
        pairs = [(seconds(one[UNTOUCHED]), seconds(one[label])) for one in rounds]
        if found := ratios(*zip(*pairs, strict=True)):
            speedups[phase] = Speedup(median(found), limits.get(phase), found)
    return speedups
