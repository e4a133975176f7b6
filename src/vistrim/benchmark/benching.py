"""``vistrim.bench``: time and memory of the untouched and the trimmed model, with speed-up bounds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vistrim._utils.environment import stamp
from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.progress import spinner
from vistrim.benchmark.keep_everything import KeepEverything
from vistrim.benchmark.making import make_subject, subject_of
from vistrim.benchmark.progress import live_tables
from vistrim.benchmark.results import Row, Run
from vistrim.benchmark.rounds import check_resumed, measure
from vistrim.benchmark.shapes import SHAPES
from vistrim.benchmark.speed_summary import summarize
from vistrim.benchmark.speed_tables import notes, tables
from vistrim.benchmark.subject import Subject, Wanted
from vistrim.benchmark.weights import generate_to_the_end
from vistrim.budgeting import set_to_budget
from vistrim.loading import weights_digest
from vistrim.methods import Method
from vistrim.methods.base.budgeted import Budgeted
from vistrim.methods.base.labelled import by_label


@dataclass(frozen=True, repr=False)
class Benchmark:
    """Result of `bench`; prints as tables.

    Attributes
    ----------
    rows : list of Row
        Medians over the rounds, in seconds, of the untouched model and each method; speed-ups with their bounds.
    runs : list of Run
        All runs of all rounds.
    settings : dict
        Model, prompt sizes, dtype, attention kernel, device and number of rounds.
    random_weights : bool
        Whether the model has random weights, so that its answers are meaningless.
    budgets : dict of str to Budgeted
        What the methods that were set to a budget reach, by label.
    """

    rows: list[Row]
    runs: list[Run]
    settings: dict[str, Any]
    random_weights: bool
    budgets: dict[str, Budgeted] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return the full notation of each label, with what it reaches; one line each.

        Returns
        -------
        list of str
        """
        return notes(self.rows, {label: found.summary for label, found in self.budgets.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return all rows and runs, with the machine and versions, as plain Python objects.

        Returns
        -------
        dict
        """
        return {
            "environment": stamp(),
            "settings": self.settings,
            "random_weights": self.random_weights,
            "budgets": {label: found.figures() for label, found in self.budgets.items()},
            "methods": [self._method(row) for row in self.rows],
        }

    def _method(self, row: Row) -> dict[str, Any]:
        speedups = {phase: asdict(found) | {"share": found.share} for phase, found in row.speedups.items()}
        runs = [asdict(run) for run in self.runs if run.method == row.label]
        return asdict(row) | {"speedups": speedups, "runs": runs}

    def __repr__(self) -> str:
        return "\n\n".join([*(table.text() for table in tables(self.rows)), *self.notes()])


def bench(
    model: Any,
    methods: Mapping[str, Method | str] | Sequence[Method | str],
    inputs: Mapping[str, Any] | None = None,
    *,
    layers: int | None = None,
    hidden: int | None = None,
    distinct_layers: int | None = None,
    batch: int = 1,
    visual_tokens: int | None = None,
    text_tokens: int = 64,
    new_tokens: int = 32,
    dtype: str = "auto",
    attn: str | None = None,
    device: str = "auto",
    repeat: int = 5,
    budget: str | None = None,
    out: Path | str | None = None,
    progress: bool = True,
) -> Benchmark:
    """Measure trimming methods against the untouched model: time of each phase, KV cache and memory.

    The untouched model and all methods take turns in every round.

    Parameters
    ----------
    model : PreTrainedModel or str
        A loaded model that `vistrim.trim` accepts; or the name of a shape (a key of
        ``vistrim.benchmark.shapes.SHAPES``), which gets random weights, of a reference model, a local directory or a
        Hugging Face id.
    methods : sequence of Method or str, or mapping of str to Method or str
        Methods, as objects or in the notation. The keys of a mapping are labels. The untouched model is always
        measured, too.
    inputs : mapping, optional
        For a loaded model only: a batch of similar samples as the processor returns them, on the model's device.
    layers, hidden : int, optional
        Decoder layers and hidden size of a named shape; those of the real model by default.
    distinct_layers : int, optional
        Decoder layers of a named shape that have their own weights; the others share these. All by default.
    batch : int
        Samples per batch of a named model.
    visual_tokens, text_tokens : int
        Tokens of each sample of a named model; the visual tokens of one typical image by default.
    new_tokens : int
        Tokens generated per sample.
    dtype, attn, device : str
        Dtype, attention kernel and device of a named model.
    repeat : int
        Rounds. In each round, every method generates once, in an order that rotates.
    budget : str, optional
        Budget to which each method is set, such as ``"tokens=0.33"``: see `vistrim.at_budget`. It refers to the prompts
        and new tokens of the benchmark.
    out : path, optional
        Folder in which every complete round is saved, in ``runs.jsonl``. An interrupted benchmark resumes from it. By
        default, runs are kept in memory only.
    progress : bool
        Whether to show preliminary tables on standard error, if that is a terminal.

    Returns
    -------
    Benchmark
        Times, speed-ups with their bounds by FLOPs and bytes, KV bytes and peak memory.

    Raises
    ------
    TypeError
        If a loaded model is given without inputs, or a named one with inputs.
    BenchmarkError
        If the shape, prompt or attention kernel is not available, memory is too small, or a generation cannot be
        measured.
    UnsupportedModelError, UnsupportedGenerationError
        If the model or the generation settings are not supported.
    LoadError
        If a checkpoint, dtype or device is not available.
    ValueError
        If a method's parameters do not fit the model or cannot be set to the budget, or two methods are the same.
    ResumeError
        If ``out`` holds another benchmark, or one of another machine or version, or another run writes to it.

    Examples
    --------
    >>> vistrim.bench("llava-1.5-7b", [vistrim.ST3(), vistrim.FastV()], layers=8, hidden=1024)
    >>> vistrim.bench(model, [vistrim.ST3()], processor(images=image, text=text, return_tensors="pt"))
    """
    named = by_label(methods, reserved=UNTOUCHED)
    folder = None if out is None else Path(out)
    if isinstance(model, str):
        if inputs is not None:
            raise TypeError("inputs are only for a loaded model: leave them out for a named one")
        wanted = Wanted(
            model, layers, hidden, distinct_layers, batch, visual_tokens, text_tokens, new_tokens, dtype, attn, device
        )
        if folder is not None:
            # Methods at a budget are not known before the model.
            check_resumed(folder, wanted, named if budget is None else None)
        with spinner(f"making {model}", progress):
            subject = make_subject(wanted)
        return _measured(subject, named, budget, repeat, new_tokens, folder, progress)
    if inputs is None:
        raise TypeError("a loaded model needs inputs: pass what its processor returns for a batch")
    with _generating_to_the_end(model):
        ids = inputs["input_ids"].cpu().numpy().tobytes()
        details = {"weights": weights_digest(model), "prompts": hashlib.sha256(ids).hexdigest()[:16]}
        subject = subject_of(model.config.name_or_path or type(model).__name__, model, inputs, new_tokens, details)
        return _measured(subject, named, budget, repeat, new_tokens, folder, progress)


def _measured(
    subject: Subject,
    methods: dict[str, Method],
    budget: str | None,
    repeat: int,
    new_tokens: int,
    folder: Path | None,
    progress: bool,
) -> Benchmark:
    budgets: dict[str, Budgeted] = {}
    if budget is not None:
        # It trims at no budget.
        whole = {label: method for label, method in methods.items() if isinstance(method, KeepEverything)}
        trimming = {label: method for label, method in methods.items() if label not in whole}
        budgets = set_to_budget(trimming, subject.model, budget, inputs=subject.inputs, new_tokens=new_tokens)
        methods = whole | {label: found.method for label, found in budgets.items()}
    with live_tables((UNTOUCHED, *methods), repeat, shown=progress) as advance:
        records = measure(
            subject,
            methods,
            folder,
            repeat=repeat,
            new_tokens=new_tokens,
            advance=lambda so_far: advance(so_far.runs, so_far.costs),
        )
    rows = summarize(records.runs, records.costs)
    settings = {**subject.settings, "weight_bytes": subject.weight_bytes, "rounds": rows[0].rounds}
    return Benchmark(rows, records.runs, settings, subject.settings["model"] in SHAPES, budgets)


@contextmanager
def _generating_to_the_end(model: Any) -> Iterator[None]:
    """Make the caller's model generate greedily and to the full length, and restore its settings on exit."""
    own = model.generation_config
    pad = own.pad_token_id if own.pad_token_id is not None else 0
    generate_to_the_end(model, pad)
    try:
        yield
    finally:
        model.generation_config = own
