"""What is known about each item, and the file that keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vistrim._utils.store import Store


@dataclass(frozen=True)
class Answer:
    """One answer and what it cost: what it would have cost alone, whatever else was in its batch.

    Attributes
    ----------
    answer : str
        Without special tokens.
    new_tokens : int
        Generated tokens, the end-of-sequence token included.
    ended : bool
        Whether the model ended the answer; else it was cut off.
    prompt_tokens : int
        Tokens of the prompt, visual ones included.
    visual_tokens : int
        Visual tokens in the prompt.
    average_tokens : float
        Visual tokens per layer in prefill, mean over layers.
    prefill_flops, prefill_flops_full : float
        Decoder FLOPs in prefill, as run and untrimmed.
    method_flops : float
        FLOPs of what the method computes beside the decoder.
    vision_flops : float or None
        FLOPs of vision tower and projector; None: not known, as images differ in size.
    kv_mean : float
        KV bytes over those of the untrimmed model at the same step, mean over steps.
    kv_bytes_peak, kv_bytes_full : float
        Largest number of KV bytes held, and what the untrimmed model would hold at the end of the same answer.
    exited : bool
        Whether a method's guide gave the answer alone. The model then has no FLOPs (its vision tower included), tokens
        or KV bytes; what the guide computes is in ``method_flops``, its own KV cache is not counted.
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
    """The answer of one side to one item.

    Attributes
    ----------
    method, item, task, prompt, right : str
        Who was asked what; ``right`` is the right answer.
    score : float
        In [0, 1]; see `vistrim.evaluation.items.Task`.
    """

    method: str
    item: str
    task: str
    prompt: str
    right: str
    score: float


@dataclass(frozen=True)
class Failure:
    """An item that could not be answered."""

    method: str
    item: str
    task: str
    error: str


class Records(Store[Sample | Failure]):
    """The samples of an evaluation, in a file that an interrupted evaluation goes on with.

    Parameters
    ----------
    path : Path or None
        JSON lines; None keeps the samples in memory only.
    settings : mapping
        What all samples of the file must share.

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
        """Why an item has no answer, if it was tried."""
        found = self.rows.get((method, item))
        return found if isinstance(found, Failure) else None

    def append(self, records: Sequence[Sample | Failure]) -> None:
        """Add records, except for failures that are known."""
        self.put(asdict(one) for one in records if one != self.failure(one.method, one.item))


def _decoded(row: dict[str, Any]) -> Sample | Failure:
    return Failure(**row) if "error" in row else Sample(**row)
