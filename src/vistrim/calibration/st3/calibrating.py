"""Fit a schedule of ST³ to a model, and resume an interrupted search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from vistrim._version import __version__
from vistrim.calibration.st3.budget import Budget
from vistrim.calibration.st3.candidates import Form
from vistrim.calibration.st3.losses import Losses
from vistrim.calibration.st3.prompts import balanced, read_prompts, sizes_of
from vistrim.calibration.st3.search import RUNGS, Found, Search, prompts_needed
from vistrim.engine.single_pass import untrimmed
from vistrim.evaluation.items import Item
from vistrim.evaluation.questions import digest
from vistrim.loading import identity
from vistrim.methods.base.budgeted import read_budget
from vistrim.methods.base.cut_schedule import Annealing, CutSchedule
from vistrim.methods.fitted_st3 import deviations


def fit_schedule(
    model: Any,
    processor: Any,
    items: Sequence[Item],
    budget: str,
    *,
    form: Form = "free",
    prompts: int = 32,
    batch_size: int = 8,
    max_new_tokens: int = 160,
    progress_file: Path | None = None,
    notes: Mapping[str, Any] | None = None,
    advance: Callable[[float], None] = lambda share: None,
) -> CutSchedule:
    """Search a schedule of ST³ that keeps most of the untouched model's predictions at a budget.

    No right answers are needed, and nothing is generated during the search: the untouched model's own answers are read
    with every candidate, and the predictions for their tokens are compared.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them. The model must not be trimmed at the time.
    items : sequence of Item
        Calibration questions.
    budget : str
        Such as "flops=0.5", see `vistrim.at_budget`. It refers to the calibration prompts and the untouched model's
        answers to them.
    form : {"free", "st3"}
        Schedules to search: any cuts and rankings, or a start layer, a stride and a share per cut of ST³.
    prompts : int
        Largest number of questions of each group of tasks.
    batch_size : int
        Questions per batch.
    max_new_tokens : int
        Longest answer, in tokens.
    progress_file : Path, optional
        File in which every evaluation is saved, from which an interrupted search resumes.
    notes : mapping, optional
        Further entries of ``made_with``.
    advance : callable
        Called with the share of the work that was just done; up to 1 in total.

    Returns
    -------
    CutSchedule
        The schedule, with the evidence of the search in ``made_with``.

    Raises
    ------
    ValueError
        If the budget is wrong or out of reach.
    UnsupportedModelError, UnsupportedGenerationError
        If the model cannot be trimmed.
    ResumeError
        If the progress file has results of another model, with other questions or settings.
    PromptError
        If prompt and answer do not fit into the model's context.
    """
    ((kind, wanted),) = read_budget(budget).items()
    facts = untrimmed(model).facts
    groups = balanced(items, prompts)
    batches = list(read_prompts(model, processor, groups, RUNGS, batch_size, max_new_tokens))
    settings = {
        **identity(model, processor),
        "questions": digest([item for own in groups.values() for item in own]),
        "max_new_tokens": max_new_tokens,
    }
    at = Budget(kind, wanted, facts, sizes_of(batches))
    counts = [sum(len(batch.items) for batch in batches if batch.rung <= rung) for rung in range(RUNGS)]
    needed = prompts_needed(at, form, counts)
    with Losses(model, batches, progress_file, settings, lambda asked: advance(asked / needed)) as losses:
        found = Search(at, losses, form).run()
    sizes = [sample for batch in batches for sample, _ in batch.sizes]
    return CutSchedule(
        model=facts.name,
        shape={
            "layers": facts.decoder.layers,
            "hidden": facts.decoder.hidden,
            "visual_tokens": round(mean(sample.visual for sample in sizes)),
        },
        budget=budget,
        cuts=found.cuts,
        annealing=Annealing(**asdict(found.annealing)),
        made_with={**(notes or {}), "evidence": _evidence(found, at, counts[-1])},
        vistrim=__version__,
    )


def _evidence(found: Found, budget: Budget, prompts: int) -> dict[str, Any]:
    method = budget.method(found.cuts, found.annealing)
    depth = budget.facts.decoder.layers
    return {
        "prompts": prompts,
        "methods_tried": found.tried,
        "reached": {kind: budget.reached(method, kind) for kind in ("flops", "kv")} | {budget.kind: found.reached},
        "mean_keep": found.cuts.mean_keep(depth),
        "differs_from_st3": deviations(found.cuts, depth),
        "loss": asdict(found.loss),
        "loss_of_default_st3": None if found.default is None else asdict(found.default),
    }
