"""Results of lmms-eval in the form that `vistrim leaderboard` merges."""

import re
from pathlib import Path

from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.syntax import split_outside
from vistrim.evaluation.entries import Entry
from vistrim.integrations.lmms.arguments import ModelArguments, read_arguments
from vistrim.integrations.lmms.results import read_results
from vistrim.methods.base.notation import parse_method

FILES = "*_results.json"
_COMMA = re.compile(",")


def entries_of_lmms_eval(folder: Path) -> list[Entry]:
    """One entry per task and metric of all results in a folder and below it.

    Raises
    ------
    InputError
        If a file cannot be read, or is of another model.
    """
    return [
        Entry(
            protocol={"tool": "lmms-eval", "task": result.task, "metric": metric, "items": result.items},
            model=given.pretrained,
            method=given.method if given.method == UNTOUCHED else str(parse_method(given.method)),
            budget=given.budget,
            score=score,
            items=result.items,
            tokens=result.costs.get("visual_tokens_per_layer"),
            flops=result.costs.get("prefill_flops_share"),
            kv=result.costs.get("kv_share"),
            # Those of this process may be others than those of the results.
            versions={},
            commit=None,
        )
        for file in sorted(folder.rglob(FILES))
        for result in read_results(file)
        for given in [_arguments(result.model_args)]
        for metric, score in result.scores.items()
    ]


def _arguments(text: str) -> ModelArguments:
    pairs = (part.partition("=") for part in split_outside(text, _COMMA))
    values = {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}
    return read_arguments({name: int(value) if value.isdigit() else value for name, value in values.items()})
