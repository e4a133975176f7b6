"""The common part of the searches for keep rates: checks, progress, and the schedule file."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

import typer

from vistrim import __version__
from vistrim._utils.environment import command_line, stamp
from vistrim._utils.progress import progress_bars
from vistrim.calibration.rate_evaluations import Asking, Evaluations
from vistrim.cli.calibrate.output import finished, show
from vistrim.cli.calibrate.questions import calibration_items
from vistrim.cli.error_lines import WrongUsageError, resumable
from vistrim.cli.models import check_loading, load_model
from vistrim.engine import describe
from vistrim.errors import InUseError, ResumeError
from vistrim.evaluation.item_prompts import check_prompts
from vistrim.evaluation.items import Item
from vistrim.evaluation.questions import digest
from vistrim.loading import identity
from vistrim.methods.base.keep_rates import check_rows
from vistrim.methods.base.schedule_file import Schedule, read_schedule


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes
    ----------
    rates : tuple of float
        Keep rate of each layer.
    performance : float
        Performance with these rates.
    notes : mapping
        Further entries of the schedule file.
    """

    rates: tuple[float, ...]
    performance: float
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Search(ABC):
    """A search for keep rates; its fields are its settings."""

    method: ClassVar[str]

    @abstractmethod
    def total(self, asking: Asking) -> int:
        """Largest number of evaluations.

        Raises
        ------
        ValueError
            If the search does not fit the model.
        """

    @abstractmethod
    def run(self, evaluations: Evaluations, asking: Asking, advance: Callable[[str], None]) -> Found:
        """Search; ``advance`` is called after each evaluation with a text on the best result so far."""


@dataclass(frozen=True)
class Calibration:
    """The options that all searches share; see ``options.py``."""

    model: str
    out: Path
    data: Path | None
    tasks: str | None
    split: str
    limit: int | None
    seed: int
    objective: Any
    rows: Any
    batch_size: int
    max_new_tokens: int
    dtype: str
    device: str
    force: bool
    as_json: bool

    def run(self, search: Search) -> None:
        """Search and write the schedule, unless it already exists.

        Raises
        ------
        WrongUsageError
            If the options do not fit each other, the model or the existing file.
        LoadError, UnsupportedModelError, ResumeError, PromptError
            If the model cannot be loaded or trimmed, earlier evaluations belong to other settings, or a question does
            not fit into the model's context.
        """
        # Cheap checks come before the model is loaded.
        try:
            check_rows(self.rows)
        except ValueError as error:
            raise WrongUsageError(str(error)) from error
        check_loading(self.dtype, self.device)
        settings = self._settings(search)
        schedule = finished(self.out, search.method, settings, self.force, read_schedule)
        if schedule is None:
            schedule = self._made(search, settings)
            schedule.write(self.out)
        else:
            typer.echo(f"{self.out} already has the result of this command: use --force to repeat the search", err=True)
        show(schedule, self.out, self.as_json)

    @cached_property
    def questions(self) -> list[Item]:
        """The calibration questions."""
        return calibration_items(self.model, self.data, self.tasks, self.split, self.limit, self.seed, self.objective)

    @property
    def _asked(self) -> dict[str, Any]:
        """Settings of an evaluation, beside model and keep rates."""
        return {
            "questions": digest(self.questions),
            "objective": self.objective,
            "rows": self.rows,
            "max_new_tokens": self.max_new_tokens,
        }

    def _settings(self, search: Search) -> dict[str, Any]:
        """Settings of the schedule."""
        source = {
            "model": self.model,
            "dtype": self.dtype,
            "data": str(self.data) if self.data else None,
            "tasks": self.tasks,
            "split": self.split,
            "limit": self.limit,
            "seed": self.seed,
        }
        return {**source, **self._asked, **vars(search)}

    def _made(self, search: Search, settings: dict[str, Any]) -> Schedule:
        model, processor = load_model(self.model, self.dtype, self.device)
        spec = describe(model)
        check_prompts(self.questions, processor)
        asking = Asking(model, processor, self.questions, self.batch_size, self.max_new_tokens)
        shared = {**identity(model, processor), **self._asked}
        progress_file = self.out.with_name(f"{self.out.name}.progress.jsonl")
        try:
            total = search.total(asking)
        except ValueError as error:
            raise WrongUsageError(str(error)) from error
        try:
            evaluations = Evaluations(asking, self.objective, self.rows, progress_file, shared)
        except ResumeError as error:
            if isinstance(error, InUseError) or not self.force:
                raise
            progress_file.unlink()
            evaluations = Evaluations(asking, self.objective, self.rows, progress_file, shared)
        with evaluations:
            found = _searched(search, evaluations, asking, total)
        return Schedule(
            method=search.method,
            model=spec.facts.name,
            layers=spec.decoder_shape.layers,
            rates=found.rates,
            rows=self.rows,
            made_with={
                "command": command_line(),
                "settings": settings,
                "environment": stamp(),
                "number_of_questions": len(self.questions),
                "evaluations": len(evaluations),
                "untouched": evaluations.untouched.performance,
                "performance": found.performance,
                "mean_rate": mean(found.rates),
                **found.notes,
            },
            vistrim=__version__,
        )


def _searched(search: Search, evaluations: Evaluations, asking: Asking, total: int) -> Found:
    with resumable(), progress_bars({"untouched": total + 1}) as advance:
        advance("untouched", text=f"untouched {100 * evaluations.untouched.performance:.1f} %")
        return search.run(evaluations, asking, lambda best: advance("untouched", text=f"best {best}"))
