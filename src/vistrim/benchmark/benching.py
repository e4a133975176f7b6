"""``vistrim.bench``: what trimming gains in time and memory, next to what it could gain at most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vistrim._utils.environment import stamp
from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.progress import spinner
from vistrim.benchmark.making import make_subject, subject_of
from vistrim.benchmark.progress import live_tables
from vistrim.benchmark.results import Row, Run
from vistrim.benchmark.rounds import check_resumed, measure
from vistrim.benchmark.shapes import SHAPES
from vistrim.benchmark.speed_summary import summarize
from vistrim.benchmark.speed_tables import notes, tables
from vistrim.benchmark.subject import Subject, Wanted
from vistrim.benchmark.weights import generate_to_the_end
from vistrim.loading import weights_digest
from vistrim.methods import Method
from vistrim.methods.base.labelled import by_label


@dataclass(frozen=True, repr=False)
class Benchmark:
    """Result of `bench`; prints as tables.

    Attributes
    ----------
    rows : list of Row
        Medians over the rounds, in seconds, of the untouched model and each method; speed-ups with their bounds.
    runs : list of Run
        Every single run behind them.
    settings : dict
        What was measured.
    random_weights : bool
        Whether the model was made with random weights, so that its answers mean nothing.
    """

    rows: list[Row]
    runs: list[Run]
    settings: dict[str, Any]
    random_weights: bool

    def to_dict(self) -> dict[str, Any]:
        """Everything, with the machine and versions, as plain Python objects."""
        return {
            "environment": stamp(),
            "settings": self.settings,
            "random_weights": self.random_weights,
            "methods": [self._method(row) for row in self.rows],
        }

    def _method(self, row: Row) -> dict[str, Any]:
        speedups = {phase: asdict(found) | {"share": found.share} for phase, found in row.speedups.items()}
        runs = [asdict(run) for run in self.runs if run.method == row.label]
        return asdict(row) | {"speedups": speedups, "runs": runs}

    def __repr__(self) -> str:
        return "\n\n".join([*(table.text() for table in tables(self.rows)), *notes(self.rows)])


def bench(
    model: Any,
    methods: Mapping[str, Method] | Sequence[Method],
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
    out: Path | str | None = None,
    progress: bool = True,
) -> Benchmark:
    """Measure the untouched model against trimming methods, in turns: time of each phase, KV cache, memory.

    Parameters
    ----------
    model : PreTrainedModel or str
        A model that `vistrim.trim` takes; or the name of a shape (a key of ``vistrim.benchmark.shapes.SHAPES``), which
        is made with random weights, of a reference model, a local directory or a Hugging Face id.
    methods : sequence of Method, or mapping of str to Method
        A mapping gives them labels of its own. The untouched model is always measured, too.
    inputs : mapping, optional
        Of a model that is given: a batch of samples that are alike, as the processor returns them, on its device.
    layers, hidden : int, optional
        Decoder layers and width of a named shape; by default the real model's.
    distinct_layers : int, optional
        Decoder layers of a named shape with weights of their own; the others use the same again. By default all.
    batch : int
        Samples of a named model.
    visual_tokens, text_tokens : int
        Of each sample of a named model; by default the visual tokens of one usual image.
    new_tokens : int
        Tokens generated per sample.
    dtype, attn, device : str
        Number type, attention kernel and device of a named model.
    repeat : int
        Rounds, in each of which every method generates once, in an order that rotates.
    out : path, optional
        Folder that keeps every complete round, in ``runs.jsonl``: a benchmark that was interrupted goes on from it. By
        default runs are kept in memory only.
    progress : bool
        Whether to show what is known so far on standard error, where that is a terminal.

    Returns
    -------
    Benchmark
        Times, speed-ups next to the bounds that FLOPs and bytes set, KV bytes and peak memory.

    Raises
    ------
    TypeError
        If a model is given without inputs, or a named one with inputs.
    BenchmarkError
        If there is no such shape, prompt or attention kernel, too little memory, or a generation cannot be measured.
    UnsupportedModelError, UnsupportedGenerationError
        If the model cannot be trimmed (this way).
    LoadError
        If a checkpoint, dtype or device is not to be had.
    ValueError
        If a method's parameters do not fit the model, or two methods are the same.
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
            raise TypeError("inputs go with a loaded model: leave them out for one that is named")
        wanted = Wanted(
            model, layers, hidden, distinct_layers, batch, visual_tokens, text_tokens, new_tokens, dtype, attn, device
        )
        if folder is not None:
            check_resumed(folder, wanted, named)
        with spinner(f"making {model}", progress):
            subject = make_subject(wanted)
        return _measured(subject, named, repeat, new_tokens, folder, progress)
    if inputs is None:
        raise TypeError("a loaded model needs inputs: pass what its processor returns for a batch")
    with _generating_to_the_end(model):
        details = {"weights": weights_digest(model)}
        subject = subject_of(model.config.name_or_path or type(model).__name__, model, inputs, new_tokens, details)
        return _measured(subject, named, repeat, new_tokens, folder, progress)


def _measured(
    subject: Subject, methods: dict[str, Method], repeat: int, new_tokens: int, folder: Path | None, progress: bool
) -> Benchmark:
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
    return Benchmark(rows, records.runs, settings, subject.settings["model"] in SHAPES)


@contextmanager
def _generating_to_the_end(model: Any) -> Iterator[None]:
    """Let a model of the caller's generate greedily and to the end for a while."""
    own = model.generation_config
    pad = own.pad_token_id if own.pad_token_id is not None else 0
    generate_to_the_end(model, pad)
    try:
        yield
    finally:
        model.generation_config = own
