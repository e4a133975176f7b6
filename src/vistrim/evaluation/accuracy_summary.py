"""Figures of a method over many items, with bootstrap intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from vistrim._utils.labels import UNTOUCHED
from vistrim.evaluation.items import Item, Task
from vistrim.evaluation.records import Failure, Records, Sample
from vistrim.methods import Method

RESAMPLES = 5000
_DRAWS_AT_ONCE = 2_000_000

AVERAGED = (
    "ended",
    "new_tokens",
    "average_tokens",
    "prefill_flops",
    "prefill_flops_full",
    "method_flops",
    "kv_mean",
    "kv_bytes_peak",
    "exited",
)
"""Attributes of samples that figures have as plain means."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """Means over the items that both the untouched model and the method answered; means of tasks for groups.

    Attributes
    ----------
    items, errors : int
        Items compared, and items left out because one of the two runs failed.
    accuracy : float or None
        Mean score; None for tasks without correct answers.
    accuracy_interval : (float, float) or None
        95 % bootstrap interval; items are drawn with replacement within each task.
    retained : float or None
        Accuracy divided by that of the untouched model on the same items; None if that is 0.
    retained_interval : (float, float) or None
        Its 95 % bootstrap interval; the same items are drawn for both.
    agreement : float
        Share of the items with the untouched model's answer, word for word.
    ended : float
        Share of the answers that ended with an end-of-sequence token; the others were cut off.
    new_tokens, average_tokens : float
        Generated tokens; visual tokens per layer in prefill.
    prefill_flops, prefill_flops_full, method_flops : float
        FLOPs per item: decoder in prefill as run and untrimmed, and the method's own networks.
    vision_flops : float or None
        FLOPs of the vision tower per item; None if not known.
    flops_ratio : float
        Untrimmed FLOPs divided by trimmed ones (prefill and the method's own), without the vision tower.
    flops_ratio_with_vision : float or None
        The same with the vision tower; None if not known.
    kv_mean : float
        KV bytes divided by the untrimmed model's at the same step, mean over steps.
    kv_peak : float
        Largest KV bytes divided by the untrimmed model's largest for an answer of the same length.
    kv_bytes_peak : float
        Largest KV bytes per item.
    exited : float
        Share of the items that the guide model answered alone.
    """

    items: int
    errors: int
    accuracy: float | None
    accuracy_interval: Interval | None
    retained: float | None
    retained_interval: Interval | None
    agreement: float
    ended: float
    new_tokens: float
    average_tokens: float
    prefill_flops: float
    prefill_flops_full: float
    method_flops: float
    vision_flops: float | None
    flops_ratio: float
    flops_ratio_with_vision: float | None
    kv_mean: float
    kv_peak: float
    kv_bytes_peak: float
    exited: float

    @property
    def flops_share(self) -> float:
        """FLOPs in prefill and of the method's own networks, as a share of the untouched model's FLOPs in prefill."""
        return 1 / self.flops_ratio


@dataclass(frozen=True)
class Row:
    """One line of the tables.

    Attributes
    ----------
    label : str
        Label of the method.
    method : str
        The method's full notation, or "untouched".
    groups, tasks : dict
        Figures per group of tasks and per task; groups in which a task has no answer at all are left out.
    errors : dict
        Items on which the untouched model or the method failed, per group of tasks.
    failures : list of Failure
        Items without an answer.
    """

    label: str
    method: str
    groups: dict[str, Figures]
    tasks: dict[str, Figures]
    errors: dict[str, int]
    failures: list[Failure]


@dataclass(frozen=True)
class _Pairs:
    """Items of one task that both the untouched model and the method answered."""

    untouched: list[Sample]
    trimmed: list[Sample]
    errors: int

    def __len__(self) -> int:
        return len(self.trimmed)


def summarize(records: Records, items: Sequence[Item], methods: Mapping[str, Method | str], seed: int = 0) -> list[Row]:
    """Rows for the untouched model and every method, in this order.

    Parameters
    ----------
    records : Records
        The answers.
    items : sequence of Item
        The questions.
    methods : Mapping
        Methods by label, as objects or in full notation.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    list of Row
    """
    names = {UNTOUCHED: UNTOUCHED} | {label: str(method) for label, method in methods.items()}
    return [_row(records, items, label, name, seed) for label, name in names.items()]


def groups_of(rows: Sequence[Row]) -> list[str]:
    """Return the groups of tasks for which a row has figures, in the order of the questions.

    Parameters
    ----------
    rows : sequence of Row
        Rows of an evaluation.

    Returns
    -------
    list of str
    """
    asked = dict.fromkeys(group for row in rows for group in row.errors)
    return [group for group in asked if any(group in row.groups for row in rows)]


def _row(records: Records, items: Sequence[Item], label: str, name: str, seed: int) -> Row:
    by_task = {task: _pairs(records, items, task, name) for task in dict.fromkeys(item.task for item in items)}
    groups = {
        group: [pairs for task, pairs in by_task.items() if task.group == group]
        for group in dict.fromkeys(task.group for task in by_task)
    }
    failures = (records.failure(name, item.id) for item in items)
    return Row(
        label=label,
        method=name,
        # A mean over fewer tasks than the untouched model's would not compare.
        groups={group: _figures(pairs, seed) for group, pairs in groups.items() if all(map(len, pairs))},
        tasks={task.name: _figures([pairs], seed) for task, pairs in by_task.items() if len(pairs)},
        errors={group: sum(task.errors for task in pairs) for group, pairs in groups.items()},
        failures=[failure for failure in failures if failure is not None],
    )


def _pairs(records: Records, items: Sequence[Item], task: Task, name: str) -> _Pairs:
    asked = [item.id for item in items if item.task == task]
    found = [(records.sample(UNTOUCHED, item), records.sample(name, item)) for item in asked]
    both = [(untouched, trimmed) for untouched, trimmed in found if untouched and trimmed]
    return _Pairs([u for u, _ in both], [t for _, t in both], len(asked) - len(both))


def _figures(tasks: Sequence[_Pairs], seed: int) -> Figures:
    def average(name: str) -> float:
        return mean(mean(getattr(sample, name) for sample in pairs.trimmed) for pairs in tasks)

    averages: dict[str, Any] = {name: average(name) for name in AVERAGED}
    # The untrimmed model sees every image.
    vision_full = _vision_flops([pairs.untouched for pairs in tasks])
    vision = _vision_flops([pairs.trimmed for pairs in tasks])
    trimmed_flops = averages["prefill_flops"] + averages["method_flops"]
    return Figures(
        items=sum(len(pairs) for pairs in tasks),
        errors=sum(pairs.errors for pairs in tasks),
        **_accuracies(tasks, seed),
        agreement=mean(
            mean(u.answer == t.answer for u, t in zip(pairs.untouched, pairs.trimmed, strict=True)) for pairs in tasks
        ),
        flops_ratio=averages["prefill_flops_full"] / trimmed_flops,
        vision_flops=vision,
        flops_ratio_with_vision=None
        if vision is None or vision_full is None
        else (averages["prefill_flops_full"] + vision_full) / (trimmed_flops + vision),
        kv_peak=average("kv_bytes_peak") / average("kv_bytes_full"),
        **averages,
    )


def _accuracies(tasks: Sequence[_Pairs], seed: int) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("accuracy", "accuracy_interval", "retained", "retained_interval"))
    if any(sample.score is None for pairs in tasks for sample in (*pairs.untouched, *pairs.trimmed)):
        return found
    untouched = [np.array([sample.score for sample in pairs.untouched]) for pairs in tasks]
    trimmed = [np.array([sample.score for sample in pairs.trimmed]) for pairs in tasks]
    drawn_untouched, drawn_trimmed = bootstrap(untouched, trimmed, seed)
    accuracy, base = _mean_of_means(trimmed), _mean_of_means(untouched)
    found |= {"accuracy": accuracy, "accuracy_interval": _interval(drawn_trimmed)}
    if base:
        # The ratio is undefined for draws in which the untouched model scores 0.
        usable = drawn_untouched > 0
        ratios = drawn_trimmed[usable] / drawn_untouched[usable]
        found |= {"retained": accuracy / base, "retained_interval": _interval(ratios)}
    return found


def _vision_flops(tasks: Sequence[Sequence[Sample]]) -> float | None:
    # FLOPs of the vision tower per item, mean over tasks; None if they are not known for all items.
    known = [[sample.vision_flops for sample in task if sample.vision_flops is not None] for task in tasks]
    if sum(map(len, known)) < sum(map(len, tasks)):
        return None
    return mean(map(mean, known))


def _mean_of_means(strata: Sequence[np.ndarray]) -> float:
    return float(np.mean([scores.mean() for scores in strata]))


def bootstrap(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], seed: int, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap the mean over strata of paired scores.

    Parameters
    ----------
    first, second : sequence of numpy.ndarray
        Scores ``(items,)`` of both sides, per stratum; the n-th scores of a stratum belong to the same item.
    seed : int
        Seed of the draws.
    resamples : int
        Number of draws.

    Returns
    -------
    first, second : numpy.ndarray
        ``(resamples,)`` means of both sides, over the same draws.
    """
    rng = np.random.default_rng(seed)
    means = np.zeros((2, len(first), resamples))
    for stratum, (a, b) in enumerate(zip(first, second, strict=True)):
        # All draws at once would take gigabytes for large sets.
        size = max(1, _DRAWS_AT_ONCE // len(a))
        for start in range(0, resamples, size):
            draws = rng.integers(0, len(a), (min(size, resamples - start), len(a)))
            means[0, stratum, start : start + size] = a[draws].mean(1)
            means[1, stratum, start : start + size] = b[draws].mean(1)
    return means[0].mean(0), means[1].mean(0)


def _interval(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
