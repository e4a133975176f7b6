"""Answers to items with their costs, and the file that stores them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vistrim._utils.store import Store


@dataclass(frozen=True)
class Answer:
    """One answer and its costs, as if it had been generated alone instead of in a batch.

    Attributes
    ----------
    answer : str
        The text, without special tokens.
    new_tokens : int
        Generated tokens, including the end-of-sequence token.
    ended : bool
        Whether the answer has an end-of-sequence token; otherwise it was cut off.
    prompt_tokens : int
        Tokens of the prompt, including visual ones.
    visual_tokens : int
        Visual tokens in the prompt.
    average_tokens : float
        Visual tokens per layer in prefill, mean over layers.
    prefill_flops, prefill_flops_full : float
        Decoder FLOPs in prefill, as run and untrimmed.
    method_flops : float
        FLOPs of the method's own networks, beside the decoder.
    vision_flops : float or None
        FLOPs of vision tower and projector; None if not known because images differ in size.
    kv_mean : float
        KV bytes divided by those of the untrimmed model at the same step, mean over steps.
    kv_bytes_peak, kv_bytes_full : float
        Largest number of KV bytes held, and the bytes that the untrimmed model holds at the end of the same answer.
    exited : bool
        Whether the guide model answered alone. The model then has no FLOPs (including its vision tower), tokens or KV
        bytes. The FLOPs of the guide model are in ``method_flops``; its own KV cache is not counted.
    """

    answer: str
    new_tokens: int
    ended: bool
    prompt_tokens: int
    visual_tokens: int
    average_tokens: float
    prefill_flops: float
    prefill_flops_full: float
    method_flops: float
    vision_flops: float | None
    kv_mean: float
    kv_bytes_peak: float
    kv_bytes_full: float
    exited: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Sample(Answer):
    """The answer of one method, or of the untouched model, to one item.

    Attributes
    ----------
    method, item, task, prompt, right : str
        Method and question; ``right`` is the correct answer.
    score : float or None
        Score in [0, 1]; see `vistrim.evaluation.items.Task`. None if the task has no correct answers.
    """

    method: str
    item: str
    task: str
    prompt: str
    right: str
    score: float | None


@dataclass(frozen=True)
class Failure:
    """An item that could not be answered."""

    method: str
    item: str
    task: str
    error: str


class Records(Store[Sample | Failure]):
    """The samples of an evaluation, in a file from which an interrupted evaluation resumes.

    Parameters
    ----------
    path : Path or None
        JSON lines; None keeps the samples in memory only.
    settings : mapping
        Settings that all samples of the file must share.

    Raises
    ------
    ResumeError
        See `vistrim._utils.store.Store`.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        super().__init__(path, settings, ("method", "item"), _decoded)

    def sample(self, method: str, item: str) -> Sample | None:
        """The answer to an item, if there is one."""
        found = self.rows.get((method, item))
        return found if isinstance(found, Sample) else None

    def failure(self, method: str, item: str) -> Failure | None:
        """The reason why an item has no answer, if it was tried and failed."""
        found = self.rows.get((method, item))
        return found if isinstance(found, Failure) else None

    def methods_beside(self, methods: Iterable[str]) -> tuple[str, ...]:
        """Further methods with answers, in full notation."""
        return tuple(sorted({row.method for row in self.rows.values()} - set(methods)))

    def append(self, records: Sequence[Sample | Failure]) -> None:
        """Add records, except for failures that are already stored."""
        self.put(asdict(one) for one in records if one != self.failure(one.method, one.item))


def _decoded(row: dict[str, Any]) -> Sample | Failure:
    return Failure(**row) if "error" in row else Sample(**row)
