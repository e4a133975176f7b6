"""Ask the untouched model and every method the same questions, item by item, and go on where a run was cut off."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import torch

from vistrim._utils.labels import UNTOUCHED
from vistrim.engine import describe
from vistrim.errors import ResumeError, VistrimError
from vistrim.evaluation.answering import answer
from vistrim.evaluation.items import Item
from vistrim.evaluation.records import Failure, Records, Sample
from vistrim.loading import is_out_of_memory
from vistrim.methods import Method
from vistrim.methods.base.method_hash import method_hash
from vistrim.trimming import trim

FAILURES_IN_A_ROW = 20
"""Items that may fail one after the other before the reason is taken not to be theirs."""


class EvaluationError(VistrimError):
    """The evaluation cannot go on."""


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
    """Answer all items untouched and with every method, as far as ``records`` lacks them.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them.
    methods : Mapping
        Methods by the label that ``advance`` is told.
    items : sequence of Item
        Items of one task are answered together, in batches.
    records : Records
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
    ResumeError
        If ``records`` has answers to other questions of the same name.
    EvaluationError
        If too many items fail one after the other.
    """
    sides: dict[str, Method | None] = {UNTOUCHED: None, **methods}
    facts = describe(model).facts
    for method in methods.values():
        # Methods that are written alike may have other files or another guide.
        records.claim({f"files and guide of {method}": method_hash(method, facts)})
    todo = {label: [item for item in items if not _known(records, side, item)] for label, side in sides.items()}
    # Refuse what does not fit before the first answer is waited for.
    for label, side in sides.items():
        if todo[label]:
            _try(model, processor, todo[label][0], side)
    for label, side in sides.items():
        failed = 0
        for batch in batches(items, batch_size):
            missing = [item for item in batch if not _known(records, side, item)]
            if missing:
                answered = _answered(model, processor, missing, side, max_new_tokens)
                records.append(answered)
                failures = [record for record in answered if isinstance(record, Failure)]
                failed = failed + len(failures) if len(failures) == len(answered) else 0
                if failed >= FAILURES_IN_A_ROW:
                    raise EvaluationError(f"{failed} items in a row failed with {label}: {failures[-1].error}")
            advance(label, len(batch))


def _known(records: Records, method: Method | None, item: Item) -> bool:
    sample = records.sample(_name(method), item.id)
    if sample is not None and (sample.prompt, sample.right) != (item.prompt, item.right):
        raise ResumeError(f"the question {item.id} is not the one that was answered before: give another folder")
    return sample is not None


def _name(method: Method | None) -> str:
    return str(method) if method else UNTOUCHED


def batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Batches of up to ``size`` neighbours of the same task, whose answers are about as long."""
    for _, group in groupby(items, key=lambda item: item.task):
        same_task = list(group)
        yield from (same_task[i : i + size] for i in range(0, len(same_task), size))


def _try(model: Any, processor: Any, item: Item, method: Method | None) -> None:
    """Let what does not fit be refused; what is wrong with the item itself is no matter here."""
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
    """Answers of a batch; where it fails, of its halves, so that one bad item spoils no other."""
    try:
        answers = answer(model, processor, items, method, max_new_tokens)
    except VistrimError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if is_out_of_memory(error):
            reason += " (use a smaller model, --dtype bfloat16 or less --max-new-tokens)"
    else:
        return [
            Sample(
                method=_name(method),
                item=item.id,
                task=item.task.name,
                prompt=item.prompt,
                right=item.right,
                score=item.score(given.answer),
                **asdict(given),
            )
            for item, given in zip(items, answers, strict=True)
        ]
    # Outside of the handler, where the error no longer holds the failed batch in memory.
    if len(items) == 1:
        return [Failure(_name(method), items[0].id, items[0].task.name, reason)]
    torch.cuda.empty_cache()
    half = len(items) // 2
    return [
        record
        for part in (items[:half], items[half:])
        for record in _answered(model, processor, part, method, max_new_tokens)
    ]
