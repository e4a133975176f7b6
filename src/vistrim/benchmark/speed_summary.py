"""From runs to rows: medians, and speed-ups with their bounds."""

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
"""Seconds of each phase of a run; None if the run has no such phase."""


def summarize(runs: Iterable[Run], costs: Mapping[str, Cost]) -> list[Row]:
    """Summarize each method.

    Parameters
    ----------
    runs : iterable of Run
        Runs of any number of rounds; those of an incomplete round are ignored.
    costs : mapping
        Costs by label, including the untouched model's; a label without a cost is left out.

    Returns
    -------
    list of Row
        In the order of ``costs``; empty without a complete round. Speed-ups are medians of the ratios within each
        round, so that drift of the machine's speed does not distort them. The untouched model and phases that take no
        time have none.
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
    bounds = {"prefill": full.prefill_flops / own.prefill_flops, "step": full.step_bytes / own.step_bytes}
    speedups = {}
    for phase, seconds in PHASES.items():
        pairs = [(seconds(one[UNTOUCHED]), seconds(one[label])) for one in rounds]
        if found := ratios(*zip(*pairs, strict=True)):
            speedups[phase] = Speedup(median(found), bounds.get(phase), found)
    return speedups
