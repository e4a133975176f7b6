"""What is known about each item, and the file that keeps it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vistrim._utils.files import append_lines, claim_folder, damaged_line, read_lines, read_object, write_whole
from vistrim.errors import ResumeError


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


class RecordFile:
    """The samples of an evaluation, one JSON line each, in a folder that an interrupted evaluation goes on with.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    settings : dict
        What all samples of the folder must share.

    Raises
    ------
    ResumeError
        If the folder belongs to other settings; says which.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._path = folder / "samples.jsonl"
        claim_folder(self._path, settings)
        self._samples: dict[tuple[str, str], Sample] = {}
        self._failures: dict[tuple[str, str], Failure] = {}
        self._identities: dict[str, str] = self._read_identities()
        self._load()

    def sample(self, method: str, item: str) -> Sample | None:
        """The answer to an item, if there is one."""
        return self._samples.get((method, item))

    def failure(self, method: str, item: str) -> Failure | None:
        """Why an item has no answer, if it was tried."""
        return self._failures.get((method, item))

    def claim(self, method: str, identity: str) -> None:
        """Note what a method's answers depend on beside its notation.

        Raises
        ------
        ResumeError
            If the folder has answers of another method that is written alike.
        """
        known = self._identities.setdefault(method, identity)
        if known != identity:
            raise ResumeError(
                f"{self._path.parent} holds answers of {method} from before its files or its guide changed: give "
                "another folder, or delete this one"
            )
        write_whole(self._path.with_name("methods.json"), json.dumps(self._identities, indent=2) + "\n")

    def append(self, records: Sequence[Sample | Failure]) -> None:
        """Add records; once this returns, a kill no longer loses them. A failure that is known is not repeated."""
        records = [record for record in records if record != self.failure(record.method, record.item)]
        append_lines(self._path, map(asdict, records))
        self._remember(records)

    def _remember(self, records: Iterable[Sample | Failure]) -> None:
        for record in records:
            key = (record.method, record.item)
            if isinstance(record, Failure):
                self._failures[key] = record
            else:
                self._samples[key] = record
                self._failures.pop(key, None)

    def _read_identities(self) -> dict[str, str]:
        path = self._path.with_name("methods.json")
        return read_object(path) if path.exists() else {}

    def _load(self) -> None:
        for number, values in read_lines(self._path):
            try:
                record = Failure(**values) if "error" in values else Sample(**values)
            except TypeError as error:
                raise damaged_line(self._path, number) from error
            self._remember([record])
