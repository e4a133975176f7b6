"""Reads the results that lmms-eval has written for a model of vistrim."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vistrim.errors import InputError

FIGURES = ("visual_tokens", "visual_tokens_per_layer", "prefill_flops_share", "kv_share")
"""Mean costs, as `vistrim.integrations.lmms.costs.means` names them."""


@dataclass(frozen=True)
class TaskResult:
    """Result of one task.

    Attributes
    ----------
    task : str
        Its name.
    scores : dict of str to float
        By metric; without filters and standard errors.
    costs : dict of str to float
        Mean costs by figure (see `FIGURES`). Empty if all answers came from the cache.
    model_args : str
        Arguments of the model, as given.
    items : int
        Number of questions.
    """

    task: str
    scores: dict[str, float]
    costs: dict[str, float]
    model_args: str
    items: int


def read_results(path: Path) -> list[TaskResult]:
    """Read a file ``*_results.json`` of lmms-eval.

    Raises
    ------
    InputError
        If it cannot be read, or is of another model.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as results of lmms-eval ({error}): check the path") from error
    config = content.get("config", {})
    if config.get("model") != "vistrim":
        raise InputError(f"{path} has no results of lmms-eval's model vistrim: run it with --model vistrim")
    found, means = content["results"], content.get("throughput", {})
    return [
        TaskResult(
            task=task,
            scores=_scores(values),
            costs=_costs(means, task, len(found) == 1),
            model_args=str(config["model_args"]),
            items=content["n-samples"].get(task, {}).get("effective", 0),
        )
        for task, values in found.items()
    ]


def _scores(values: dict[str, Any]) -> dict[str, float]:
    numbers = {name.partition(",")[0]: value for name, value in values.items() if isinstance(value, (int, float))}
    return {name: float(value) for name, value in numbers.items() if "_stderr" not in name}


def _costs(means: dict[str, Any], task: str, is_alone: bool) -> dict[str, float]:
    names = {figure: f"avg_{figure}[{task}]" for figure in FIGURES}
    if is_alone:
        names = {figure: f"avg_{figure}" for figure in FIGURES}
    return {figure: float(means[name]) for figure, name in names.items() if name in means}
