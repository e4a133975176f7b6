"""Results of `vistrim.check`."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vistrim._utils.tables import Table

Status = Literal["passed", "failed", "not possible", "measured"]
"""Status of a check. "not possible": the model does not support it, or rounding hides the result. "measured": a figure
that cannot pass or fail."""


@dataclass(frozen=True)
class Outcome:
    """Result of one check.

    Attributes
    ----------
    name : str
        Identifier, for programs.
    title : str
        Title, for readers.
    status : {"passed", "failed", "not possible", "measured"}
        "not possible" if the model does not support the check, or rounding hides the result. "measured" for a figure
        that cannot pass or fail.
    detail : str
        The result in words, or the reason why the check is not possible.
    figures : dict
        Figures of the result, as plain Python objects.
    """

    name: str
    title: str
    status: Status
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckReport:
    """Result of `check`: all checks on one model; prints as a page.

    Attributes
    ----------
    model, model_type : str
        Class and checkpoint, and the name of the family in transformers.
    dtype, device, attention : str
        Dtype of the weights, device of the inputs, and attention kernel.
    prompt_tokens, visual_tokens : int
        Number of all tokens and of visual tokens in the prompt.
    new_tokens : int
        Tokens generated in each run.
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
        """Whether no check failed."""
        return all(outcome.status != "failed" for outcome in self.outcomes)

    @property
    def verdict(self) -> str:
        """Summary in one line."""
        counts = {status: sum(o.status == status for o in self.outcomes) for status in ("passed", "failed")}
        not_possible = sum(o.status == "not possible" for o in self.outcomes)
        found = f"{counts['passed']} passed, {counts['failed']} failed, {not_possible} not possible here"
        return f"{found}: {'trimming is correct on this model' if self.passed else 'please report this'}"

    def table(self) -> Table:
        """Return a table with one row for each check.

        Returns
        -------
        Table
        """
        rows: list[tuple[str, ...]] = [(outcome.title, outcome.status, outcome.detail) for outcome in self.outcomes]
        failed = frozenset((i, 1) for i, outcome in enumerate(self.outcomes) if outcome.status == "failed")
        return Table(f"vistrim check: {self.model}", ("check", "result", "found"), rows, failed)

    def settings(self) -> str:
        """Return model, dtype, kernel and versions in one line.

        Returns
        -------
        str
        """
        env = self.environment
        where = env.get("accelerator") if not self.device.startswith("cpu") else env.get("processor")
        return (
            f"{self.model_type}, {self.dtype}, {self.attention} attention, {self.device} ({where}); "
            f"{self.prompt_tokens} prompt tokens, {self.visual_tokens} of them visual, {self.new_tokens} generated; "
            f"vistrim {env['vistrim']}, transformers {env['transformers']}, torch {env['torch']}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all results as plain Python objects.

        Returns
        -------
        dict
        """
        return {"passed": self.passed} | asdict(self)

    def to_json(self, indent: int | None = 2) -> str:
        """Return all results as JSON text.

        Parameters
        ----------
        indent : int or None
            Spaces of indentation; None for one line.

        Returns
        -------
        str
        """
        return json.dumps(self.to_dict(), indent=indent)

    def markdown(self) -> str:
        """Return the page as Markdown, for a bug report.

        Returns
        -------
        str
        """
        return "\n\n".join([self.table().markdown(), self.settings(), self.verdict]) + "\n"

    def __str__(self) -> str:
        lines = [f"{o.status:<12}  {o.title}: {o.detail}" for o in self.outcomes]
        return "\n".join([self.settings(), *lines, self.verdict])

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        # Called only by rich.
        from vistrim.checking.page import page

        table = self.table()
        return page(table.title, table.rows, self.settings(), self.verdict, self.passed)
