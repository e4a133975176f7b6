"""Answer the same questions with the untouched model and every method, and resume an interrupted run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from vistrim._utils.labels import UNTOUCHED
from vistrim.engine import describe
from vistrim.errors import ResumeError, VistrimError
from vistrim.evaluation.answering import answer
from vistrim.evaluation.items import Item
from vistrim.evaluation.records import Answer, Failure, Records, Sample
from vistrim.evaluation.retrying import each
from vistrim.methods import Method
from vistrim.methods.base.method_hash import method_hash
from vistrim.trimming import trim

FAILURES_IN_A_ROW = 20
"""Number of consecutive failures after which the evaluation stops: the items are unlikely to be the cause."""


class EvaluationError(VistrimError):
    """The evaluation cannot continue."""


def answer_all(
    model: Any,
    processor: Any,
    methods: Mapping[str, Method],
    items: Sequence[Item],
    records: Records,
    *,
    batch_size: int = 8,
    max_new_tokens: int = 160,
    advance: Callable[[str, int], None] = lambda label, answered: None,
) -> None:
    """Answer all items that ``records`` lacks, with the untouched model and with every method.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them.
    methods : Mapping
        Methods by label.
    items : sequence of Item
        Items; adjacent ones of the same task are answered in batches.
    records : Records
        Receives every answer immediately. Items that failed in an earlier run are tried again.
    batch_size : int
        Samples per batch, at least 1.
    max_new_tokens : int
        Longest answer, in tokens.
    advance : callable
        Called with a label and the number of items just answered, including those already in ``records``.

    Raises
    ------
    UnsupportedModelError, UnsupportedGenerationError
        If the model or the generation settings are not supported.
    ValueError
        If a method's parameters do not fit the model.
    ResumeError
        If ``records`` has answers to other questions with the same id.
    EvaluationError
        If too many consecutive items fail.
    """
    sides: dict[str, Method | None] = {UNTOUCHED: None, **methods}
    facts = describe(model).facts
    for method in methods.values():
        # Methods with the same notation may differ in their files or guide model.
        records.claim({f"files and guide of {method}": method_hash(method, facts)})
    todo = {label: [item for item in items if not known(records, _name(side), item)] for label, side in sides.items()}
    # Refuse unsupported combinations before the first answers are generated.
    for label, side in sides.items():
        if todo[label]:
            _try(model, processor, todo[label][0], side)
    for label, side in sides.items():
        failed = 0
        for batch in batches(items, batch_size):
            missing = [item for item in batch if not known(records, _name(side), item)]
            if missing:
                answered = _answered(model, processor, missing, side, max_new_tokens)
                records.append(answered)
                failures = [record for record in answered if isinstance(record, Failure)]
                failed = failed + len(failures) if len(failures) == len(answered) else 0
                if failed >= FAILURES_IN_A_ROW:
                    raise EvaluationError(f"{failed} consecutive items failed with {label}: {failures[-1].error}")
            advance(label, len(batch))


def known(records: Records, method: str, item: Item) -> bool:
    """Whether records have the answer of a method to an item.

    Raises
    ------
    ResumeError
        If they have one to another question of the same id.
    """
    sample = records.sample(method, item.id)
    if sample is not None and (sample.prompt, sample.right) != (item.prompt, item.right):
        raise ResumeError(f"the folder has an answer to another question with the id {item.id}: give another folder")
    return sample is not None


def _name(method: Method | None) -> str:
    return str(method) if method else UNTOUCHED


def batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Batches of up to ``size`` adjacent items of the same task, whose answers have similar lengths."""
    for _, group in groupby(items, key=lambda item: item.task):
        same_task = list(group)
        yield from (same_task[i : i + size] for i in range(0, len(same_task), size))


def _try(model: Any, processor: Any, item: Item, method: Method | None) -> None:
    """Raise if the method is not supported; errors of the item itself are ignored here."""
    if method is not None:
        trim(model, method)
    try:
        answer(model, processor, [item], method, max_new_tokens=2)
    except VistrimError:
        raise
    except Exception:
        return


def _answered(
    model: Any, processor: Any, items: list[Item], method: Method | None, max_new_tokens: int
) -> list[Sample | Failure]:
    found = each(items, lambda part: answer(model, processor, part, method, max_new_tokens))
    return [record(_name(method), item, given) for item, given in zip(items, found, strict=True)]


def record(method: str, item: Item, given: Answer | str) -> Sample | Failure:
    """The record of an answer, or of the reason why there is none.

    Parameters
    ----------
    method : str
        Notation of the method, or "untouched".
    item : Item
        The question.
    given : Answer or str
        The answer, or the reason.
    """
    if isinstance(given, str):
        return Failure(method, item.id, item.task.name, given)
    return Sample(
        method=method,
        item=item.id,
        task=item.task.name,
        prompt=item.prompt,
        right=item.right,
        score=item.score(given.answer) if item.task.scored else None,
        **asdict(given),
    )
