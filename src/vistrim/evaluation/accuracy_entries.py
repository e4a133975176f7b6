"""The entries of an evaluation for a leaderboard: one per method and task."""

from collections.abc import Sequence

from vistrim._utils.labels import UNTOUCHED
from vistrim.evaluation.accuracy_summary import Figures, Row
from vistrim.evaluation.entries import Entry
from vistrim.evaluation.evaluating import Evaluation
from vistrim.evaluation.items import Item, Task
from vistrim.evaluation.questions import digest


def entries_of(found: Evaluation, items: Sequence[Item], budget: str | None) -> list[Entry]:
    """Entries for all methods and tasks.

    Parameters
    ----------
    found : Evaluation
        The result; its settings must include the model's name.
    items : sequence of Item
        The questions.
    budget : str or None
        Budget to which all methods were set.
    """
    asked = {task: [item for item in items if item.task == task] for task in dict.fromkeys(item.task for item in items)}
    return [
        _entry(found, row, task, own, row.tasks[task.name], budget)
        for task, own in asked.items()
        for row in found.rows
        if task.name in row.tasks
    ]


def _entry(
    found: Evaluation, row: Row, task: Task, items: Sequence[Item], figures: Figures, budget: str | None
) -> Entry:
    return Entry(
        protocol={
            "tool": "vistrim eval",
            "task": task.name,
            "questions": digest(items),
            "metric": task.score.__name__ if task.scored else None,
            "max_new_tokens": found.settings["max_new_tokens"],
        },
        model=found.settings["model"],
        method=row.method,
        budget=None if row.method == UNTOUCHED else budget,
        score=figures.accuracy,
        items=figures.items,
        errors=figures.errors,
        tokens=figures.average_tokens,
        flops=figures.flops_share,
        kv=figures.kv_mean,
    )
