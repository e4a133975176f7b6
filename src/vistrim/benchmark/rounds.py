"""Rounds in which the untouched model and every method take turns, and resuming them after an interruption."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vistrim._utils.environment import stamp
from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.store import check_settings
from vistrim.benchmark.cost import trimmed_cost, untouched_cost
from vistrim.benchmark.paired import WARM_UP_TOKENS, Timed, in_turn, time_generation
from vistrim.benchmark.results import Run
from vistrim.benchmark.run_file import RUNS, RunFile
from vistrim.benchmark.subject import Subject, Wanted
from vistrim.engine import ModelSpec, describe
from vistrim.errors import BenchmarkError
from vistrim.methods import Method
from vistrim.methods.base.method_hash import method_hash
from vistrim.trimming import prepare_trim

CONDITIONS = (
    "processor",
    "cores",
    "threads",
    "accelerator",
    "python",
    "torch",
    "transformers",
    "vistrim",
    "commit",
    "cpu_capability",
)
"""Entries of the environment that must be equal for all runs of a folder."""


def measure(
    subject: Subject,
    methods: Mapping[str, Method],
    folder: Path | None,
    *,
    repeat: int = 5,
    new_tokens: int = 32,
    advance: Callable[[RunFile], None] = lambda records: None,
) -> RunFile:
    """Run the rounds that ``folder`` lacks, with the untouched model and every method.

    Parameters
    ----------
    subject : Subject
        The model and its prompts.
    methods : mapping
        Methods by label.
    folder : Path or None
        Folder in which every complete round is saved; only missing rounds are run. None keeps them in memory.
    repeat : int
        Number of rounds.
    new_tokens : int
        Tokens generated per sample.
    advance : callable
        Called with the results so far, before the first run and after every run.

    Returns
    -------
    RunFile
        All runs, and the costs of all methods.

    Raises
    ------
    UnsupportedModelError, UnsupportedGenerationError
        If the model or the generation settings are not supported.
    ParameterError, ValueError
        If a method's parameters do not fit the model, or ``repeat`` or ``new_tokens`` is less than 1.
    ResumeError
        If ``folder`` belongs to another benchmark, or to another machine or version.
    BenchmarkError
        If a generation cannot be measured.

    Notes
    -----
    A guide model generates as many tokens as the model. Weights of methods and guide models count as held before a run.
    """
    for name, value in (("repeat", repeat), ("new_tokens", new_tokens)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    if UNTOUCHED in methods:
        raise ValueError(f"{UNTOUCHED!r} is the label of the untouched model: give the method another label")
    spec = describe(subject.model)
    # Refuse unsupported methods before the first run.
    for label, method in methods.items():
        _check(subject, spec, label, method)
    sides: dict[str, Method | None] = {UNTOUCHED: None, **methods}
    path = None if folder is None else folder / RUNS
    with RunFile(path, _settings(subject, spec, methods, new_tokens), list(sides)) as records:
        advance(records)
        if records.rounds < repeat:
            for label in _warmed(subject, sides):
                _timed(subject, spec, sides[label], WARM_UP_TOKENS)
            records.note_cost(UNTOUCHED, untouched_cost(subject, spec, new_tokens))

        def run(label: str, number: int) -> Timed:
            return _timed(subject, spec, sides[label], new_tokens)

        for number, label, timed in in_turn(run, list(sides), records.missing(repeat)):
            if timed.report is not None:
                records.note_cost(label, trimmed_cost(timed.report, methods[label], spec, subject.weight_bytes))
            records.append(_run(label, number, timed))
            advance(records)
    return records


def _check(subject: Subject, spec: ModelSpec, label: str, method: Method) -> None:
    """Refuse a method that the model cannot run, or whose guide model may answer instead of the model."""
    prepare_trim(subject.model, method)
    guidance = method.fitted(spec.facts).guidance if method.ranks_by == "guide" else None
    if guidance is not None and guidance.exit_threshold is not None:
        raise BenchmarkError(
            f"{label} lets its guide model answer some samples alone, so that the model cannot be timed: leave out "
            "exit_threshold"
        )


def check_resumed(folder: Path, wanted: Wanted, methods: Mapping[str, Method] | None) -> None:
    """Refuse a folder of another benchmark before the model is made, as far as the settings show it.

    Parameters
    ----------
    folder : Path
        Folder of the benchmark.
    wanted : Wanted
        Request for the subject.
    methods : mapping or None
        Methods by label; None: not yet known.

    Raises
    ------
    ResumeError
        See `measure`.
    """
    names = ("model", "layers", "hidden", "batch", "visual_tokens", "text_tokens", "new_tokens", "attn")
    asked = {name: value for name in names if (value := getattr(wanted, name)) is not None}
    known = {} if methods is None else {"methods": _notations(methods)}
    check_settings(folder / RUNS, {**_conditions(), **asked, **known})


def _conditions() -> dict[str, Any]:
    environment = stamp()
    return {name: environment[name] for name in CONDITIONS}


def _notations(methods: Mapping[str, Method]) -> dict[str, str]:
    return {label: str(method) for label, method in methods.items()}


def _settings(subject: Subject, spec: ModelSpec, methods: Mapping[str, Method], new_tokens: int) -> dict[str, Any]:
    return {
        **_conditions(),
        **subject.settings,
        "new_tokens": new_tokens,
        "methods": _notations(methods),
        # Methods with the same notation may differ in their files or guide model.
        "identities": {label: method_hash(method, spec.facts) for label, method in methods.items()},
    }


def _warmed(subject: Subject, sides: Mapping[str, Method | None]) -> list[str]:
    """Labels of the sides that run once before the first round, to warm up.

    On an accelerator, kernels are chosen and compiled for the shapes of each method. On a CPU, weights are read and
    threads are started, which is the same for every method; and a generation may take minutes there.
    """
    return list(sides) if subject.model.device.type != "cpu" else [UNTOUCHED]


def _timed(subject: Subject, spec: ModelSpec, method: Method | None, new_tokens: int) -> Timed:
    length = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
    timed = time_generation(subject.model, spec, method, subject.inputs, do_sample=False, **length)
    if (made := 1 + len(timed.times.steps)) != new_tokens:
        raise BenchmarkError(
            f"the model generated {made} tokens instead of {new_tokens}: its generation config ends answers early, for "
            "example by max_time or forced tokens; remove that setting from model.generation_config"
        )
    return timed


def _run(label: str, number: int, timed: Timed) -> Run:
    times, report = timed.times, timed.report
    return Run(
        method=label,
        round=number,
        encode_seconds=times.encode,
        first_token_seconds=times.first_token,
        select_seconds=report.select_seconds + report.guide_seconds if report is not None else 0.0,
        step_seconds=times.steps,
        peak_bytes=timed.peak_bytes,
    )
