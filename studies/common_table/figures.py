"""Figures of the rows, with differences to the baselines of the same budget."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studies.common_table.rows import Row
from vistrim._utils.labels import UNTOUCHED
from vistrim.evaluation import Figures, Records, summarize
from vistrim.evaluation.accuracy_summary import RESAMPLES
from vistrim.evaluation.items import Item

COMPARED_WITH = ("random", "uniform")
"""Methods with which every row of the same budget is compared."""
SHOWN = ("accuracy", "accuracy_interval", "retained", "agreement", "average_tokens", "flops_share", "kv_mean")
"""Figures of a group of tasks that are stored."""
DIGITS = 5


def figures(records: Records, items: Sequence[Item], rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of the untouched model and of all rows that have answers.

    Parameters
    ----------
    records : Records
        The answers.
    items : sequence of Item
        Questions that every row with answers has answered.
    rows : sequence of Row
        The rows.

    Returns
    -------
    dict
        ``"images"``, their number, and ``"figures"`` by the name of the row.
    """
    ran = [row for row in rows if row.questions and row.method]
    methods = {row.name: row.method for row in ran if row.method}
    drawn = draws(records, items, {UNTOUCHED: UNTOUCHED, **methods})
    found = {}
    for summary in summarize(records, items, methods):
        found[summary.label] = {
            "mean": rounded(drawn[summary.label][0]),
            "groups": {group: _stored(each) for group, each in summary.groups.items()},
            "tasks": {task: rounded(each.accuracy) for task, each in summary.tasks.items()},
        }
    for row in ran:
        others = {name: f"{name} at {row.asked:g}" for name in COMPARED_WITH if row.asked is not None}
        found[row.name]["against"] = {
            name: difference(drawn[row.name] - drawn[other]) for name, other in others.items() if other in methods
        }
    return {"images": len({item.image_id for item in items}), "figures": found}


def draws(records: Records, items: Sequence[Item], methods: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Mean over groups of tasks of each method: first on all images, then on images drawn with replacement."""
    tasks = [item.task for item in items]
    groups = [task.group for task in tasks]
    in_group = {group: len({task.name for task in tasks if task.group == group}) for group in groups}
    weights = np.array([1 / (len(in_group) * in_group[task.group] * tasks.count(task)) for task in tasks])
    images = list(dict.fromkeys(item.image_id for item in items))
    image = np.array([images.index(item.image_id) for item in items])
    # Questions about the same image are drawn together.
    counts = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), RESAMPLES)
    counts = np.vstack([np.ones(len(images), int), counts])
    total = counts @ np.bincount(image, weights, len(images))
    return {
        name: counts @ np.bincount(image, weights * _scores(records, method, items), len(images)) / total
        for name, method in methods.items()
    }


def _scores(records: Records, method: str, items: Sequence[Item]) -> np.ndarray:
    samples = [records.sample(method, item.id) for item in items]
    return np.array([sample.score for sample in samples if sample])


def difference(drawn: np.ndarray) -> list[float]:
    """Difference, and the bounds of its 95 % interval."""
    low, high = np.percentile(drawn[1:], [2.5, 97.5])
    return [rounded(value) for value in (drawn[0], low, high)]


def _stored(group: Figures) -> dict[str, Any]:
    return {name: rounded(getattr(group, name)) for name in SHOWN}


def rounded(value: Any) -> Any:
    """Round a figure, or each of a tuple, to `DIGITS`. None stays."""
    if value is None:
        return None
    return [rounded(one) for one in value] if isinstance(value, tuple) else round(float(value), DIGITS)
