"""Ask the untouched model and every method the same questions, item by item, and go on where a run was cut off."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from vistrim.errors import VistrimError
from vistrim.evaluation.answering import answer
from vistrim.evaluation.records import UNTOUCHED, Failure, RecordFile, Sample
from vistrim.evaluation.scoring import score
from vistrim.methods import Method
from vistrim.reference.items import Item
from vistrim.trimming import trim


def evaluate(
    model: Any,
    processor: Any,
    methods: Mapping[str, Method],
    items: Sequence[Item],
    records: RecordFile,
    *,
    batch_size: int = 8,
    max_new_tokens: int = 160,
    advance: Callable[[str, int], None] = lambda label, answered: None,
) -> None:
    """Answer all items untouched and with every method, as far as ``records`` lacks them.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them.
    methods : Mapping
        Methods by the label that ``advance`` is told.
    items : sequence of Item
        Items of one task are answered together, in batches.
    records : RecordFile
        Takes every answer at once. Items that failed in an earlier run are tried again.
    batch_size : int
        Samples per batch, at least 1.
    max_new_tokens : int
        Longest answer.
    advance : callable
        Told the label and how many items were answered, also for those that ``records`` had.

    Raises
    ------
    UnsupportedModelError, UnsupportedGenerationError
        If the model cannot be trimmed (this way).
    ValueError
        If a method's parameters do not fit the model.
    """
    # Refuse what does not fit before the first answer.
    for method in methods.values():
        trim(model, method)
    sides: dict[str, Method | None] = {UNTOUCHED: None, **methods}
    for label, side in sides.items():
        for batch in _batches(items, batch_size):
            name = str(side) if side else UNTOUCHED
            missing = [item for item in batch if records.sample(name, item.id) is None]
            if missing:
                records.append(_answered(model, processor, missing, side, max_new_tokens))
            advance(label, len(batch))


def _batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    for _, group in groupby(items, key=lambda item: item.task):
        same_task = list(group)
        yield from (same_task[i : i + size] for i in range(0, len(same_task), size))


def _answered(
    model: Any, processor: Any, items: list[Item], method: Method | None, max_new_tokens: int
) -> list[Sample | Failure]:
    """Answers of a batch; where it fails, each item alone, so that one bad item spoils no other."""
    name = str(method) if method else UNTOUCHED
    try:
        answers = answer(model, processor, items, method, max_new_tokens)
    except VistrimError:
        raise
    except Exception as error:
        if len(items) > 1:
            return [r for item in items for r in _answered(model, processor, [item], method, max_new_tokens)]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return [Failure(name, items[0].id, items[0].task, reason)]
    return [
        Sample(
            method=name,
            item=item.id,
            task=item.task,
            prompt=item.prompt,
            right=item.answer,
            answer=given.text,
            score=score(item.task, given.text, item.answer),
            new_tokens=given.new_tokens,
            **given.costs,  # type: ignore[arg-type]
        )
        for item, given in zip(items, answers, strict=True)
    ]
