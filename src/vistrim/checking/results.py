"""What `vistrim.check` found."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vistrim._utils.tables import Table

Status = Literal["passed", "failed", "not possible", "measured"]
"""How a check ended. "not possible": the model refuses what it needs, or rounding hides the answer. "measured": a
figure that is neither right nor wrong."""


@dataclass(frozen=True)
class Outcome:
    """How one check ended.

    Attributes
    ----------
    name : str
        For programs.
    title : str
        What was checked.
    status : {"passed", "failed", "not possible", "measured"}
        How it ended.
    detail : str
        What was found, or the reason.
    figures : dict
        The numbers behind it, as plain Python objects.
    """

    name: str
    title: str
    status: Status
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckReport:
    """All checks on one model.

    Attributes
    ----------
    model, model_type : str
        Class and checkpoint, and transformers' name for the family.
    dtype, device, attention : str
        Number type of the weights, where the model takes its inputs, and its attention kernel.
    prompt_tokens, visual_tokens : int
        Of the prompt that was used.
    new_tokens : int
        Tokens that were generated in each run.
    outcomes : tuple of Outcome
        The checks, in the order in which they ran.
    environment : dict
        Machine, versions and commit.
    """

    model: str
    model_type: str
    dtype: str
    device: str
    attention: str
    prompt_tokens: int
    visual_tokens: int
    new_tokens: int
    outcomes: tuple[Outcome, ...]
    environment: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether no check has failed."""
        return all(outcome.status != "failed" for outcome in self.outcomes)

    @property
    def verdict(self) -> str:
        """All of it in one line."""
        counts = {status: sum(o.status == status for o in self.outcomes) for status in ("passed", "failed")}
        not_possible = sum(o.status == "not possible" for o in self.outcomes)
        found = f"{counts['passed']} passed, {counts['failed']} failed, {not_possible} not possible here"
        return f"{found}: {'trimming is right on this model' if self.passed else 'please report this'}"

    def table(self) -> Table:
        """One row for each check."""
        rows: list[tuple[str, ...]] = [(outcome.title, outcome.status, outcome.detail) for outcome in self.outcomes]
        failed = frozenset((i, 1) for i, outcome in enumerate(self.outcomes) if outcome.status == "failed")
        return Table(f"vistrim check: {self.model}", ("check", "result", "found"), rows, failed)

    def settings(self) -> str:
        """Model, number type, kernel and versions in one line."""
        env = self.environment
        where = env.get("accelerator") if not self.device.startswith("cpu") else env.get("processor")
        return (
            f"{self.model_type}, {self.dtype}, {self.attention} attention, {self.device} ({where}); "
            f"{self.prompt_tokens} prompt tokens, {self.visual_tokens} of them visual, {self.new_tokens} generated; "
            f"vistrim {env['vistrim']}, transformers {env['transformers']}, torch {env['torch']}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python objects."""
        return {"passed": self.passed} | asdict(self)

    def to_json(self, indent: int | None = 2) -> str:
        """Everything as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def markdown(self) -> str:
        """The page as Markdown, for a bug report."""
        return "\n\n".join([self.table().markdown(), self.settings(), self.verdict]) + "\n"

    def __str__(self) -> str:
        lines = [f"{o.status:<12}  {o.title}: {o.detail}" for o in self.outcomes]
        return "\n".join([self.settings(), *lines, self.verdict])

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        # Only a terminal of rich asks for this.
        from vistrim.checking.page import page

        table = self.table()
        return page(table.title, table.rows, self.settings(), self.verdict, self.passed)
