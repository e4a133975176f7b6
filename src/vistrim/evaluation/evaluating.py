"""``vistrim.evaluate``: the accuracy that trimming retains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vistrim._utils.environment import stamp
from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.progress import progress_bars
from vistrim.evaluation.accuracy_summary import Row, summarize
from vistrim.evaluation.accuracy_tables import notes, tables
from vistrim.evaluation.item_prompts import check_prompts
from vistrim.evaluation.items import Item
from vistrim.evaluation.question_files import read_questions
from vistrim.evaluation.records import Failure, Records
from vistrim.evaluation.runner import answer_all
from vistrim.loading import identity
from vistrim.methods import Method
from vistrim.methods.base.labelled import by_label
from vistrim.trimming import prepare_trim

SAMPLES = "samples.jsonl"
"""Name of the file of samples in the output folder."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Result of `evaluate`; prints as tables.

    Attributes
    ----------
    rows : list of Row
        Figures of the untouched model, then of each method, by group of tasks and by task.
    settings : dict
        Model, answer length, batch size, number of questions and seed.
    others : tuple of str
        Methods in full notation that have answers in the same folder, but were not asked for. They are in no figure.
    """

    rows: list[Row]
    settings: dict[str, Any]
    others: tuple[str, ...] = ()

    @property
    def failures(self) -> list[Failure]:
        """Questions that could not be answered; no figure contains them."""
        return [failure for row in self.rows for failure in row.failures]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, with the machine and versions, as plain Python objects.

        Returns
        -------
        dict
        """
        return {"environment": stamp(), "settings": self.settings, "methods": [asdict(row) for row in self.rows]}

    def __repr__(self) -> str:
        return "\n\n".join([*(table.text() for table in tables(self.rows)), *notes(self.rows)])


def evaluate(
    model: Any,
    processor: Any,
    methods: Mapping[str, Method | str] | Sequence[Method | str],
    questions: Sequence[Item] | Path | str,
    *,
    out: Path | str | None = None,
    batch_size: int = 8,
    max_new_tokens: int = 160,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Ask the untouched model and trimming methods the same questions, and report the accuracy retained.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them.
    methods : sequence of Method or str, or mapping of str to Method or str
        Methods, as objects or in the notation. The keys of a mapping are labels. The untouched model is always
        evaluated, too.
    questions : path, or sequence of Item
        A file of JSON lines such as ``{"image": "photo.png", "prompt": "What is this?", "answer": "a cat"}``, see
        `vistrim.evaluation.read_questions`; or questions made in Python, such as those of
        `vistrim.reference.suites.questions`.
    out : path, optional
        Folder in which every answer is saved, in ``samples.jsonl``. An interrupted evaluation resumes from it, and more
        methods or questions only add to it. The result has the methods of this call alone; those of earlier calls are
        in it if they are passed again, and are not answered again. By default, answers are kept in memory only.
    batch_size : int
        Questions per batch. Costs are those of each question alone, without the padding of its batch.
    max_new_tokens : int
        Longest answer, in tokens. Answers are greedy.
    seed : int
        Seed of the bootstrap intervals.
    progress : bool
        Whether to show progress on standard error, if that is a terminal.

    Returns
    -------
    Evaluation
        Accuracy with 95 % intervals, agreement with the untouched model, visual tokens per layer, FLOPs and KV bytes.

    Raises
    ------
    InputError
        If the file of questions is invalid; the message names the line.
    UnsupportedModelError, UnsupportedGenerationError
        If the model or the generation settings are not supported.
    ValueError
        If there is no question, a method's parameters do not fit the model, or two methods are the same.
    ResumeError
        If ``out`` holds answers of another model or with other settings, or another run writes to it.
    EvaluationError
        If too many questions in a row cannot be answered.

    Examples
    --------
    >>> model, processor = vistrim.load("llava-hf/llava-1.5-7b-hf")
    >>> found = vistrim.evaluate(model, processor, [vistrim.ST3(), vistrim.FastV()], "questions.jsonl", out="results")
    >>> found
    >>> found.rows[1].groups["Answers"].retained
    """
    named = by_label(methods, reserved=UNTOUCHED)
    items = questions if not isinstance(questions, (str, Path)) else read_questions(Path(questions))
    if not items:
        raise ValueError("there are no questions: pass one or more")
    check_prompts(items, processor)
    for method in named.values():
        prepare_trim(model, method)
    settings = {**identity(model, processor), "max_new_tokens": max_new_tokens}
    with (
        Records(None if out is None else Path(out) / SAMPLES, settings) as records,
        progress_bars(dict.fromkeys((UNTOUCHED, *named), len(items)), progress) as advance,
    ):
        answer_all(
            model,
            processor,
            named,
            items,
            records,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            advance=advance,
        )
        rows = summarize(records, items, named, seed)
        others = records.methods_beside(row.method for row in rows)
    return Evaluation(rows, {**settings, "batch_size": batch_size, "questions": len(items), "seed": seed}, others)
