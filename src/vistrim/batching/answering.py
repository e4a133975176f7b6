"""Ways to answer questions with a predictor: in this process, or elsewhere."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vistrim.batching.predictor import Predictor, columns, rows_of
from vistrim.errors import VistrimError
from vistrim.evaluation.items import Item

Rows = Iterator[list[dict[str, Any]]]
Answerer = Callable[[Predictor, Sequence[Item]], Rows]
"""Answers questions in batches, in any order; a row has the ``id`` of its question."""

FAILURES_IN_A_ROW = 20
"""Number of consecutive failures after which a job stops: the rows are unlikely to be the cause."""


class JobError(VistrimError):
    """A job cannot continue."""


def in_process(batch_size: int) -> Answerer:
    """Answer in this process, in batches of adjacent questions."""

    def answer(predictor: Predictor, items: Sequence[Item]) -> Rows:
        for start in range(0, len(items), batch_size):
            yield rows_of(predictor(columns(items[start : start + batch_size])))

    return answer


def checked(rows: Rows) -> Rows:
    """Pass batches on, and stop when too many consecutive rows have failed.

    Raises
    ------
    JobError
        If so; after the failures were passed on.
    """
    failed = 0
    for batch in rows:
        yield batch
        for row in batch:
            failed = failed + 1 if row["error"] else 0
            if failed >= FAILURES_IN_A_ROW:
                raise JobError(f"{failed} consecutive rows failed: {row['error']}")
