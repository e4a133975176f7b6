"""Rounds in which the untouched model and every method take turns, and going on where they were cut off."""

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
"""What of the environment has to be the same in all runs of a folder."""


def measure(
    subject: Subject,
    methods: Mapping[str, Method],
    folder: Path | None,
    *,
    repeat: int = 5,
    new_tokens: int = 32,
    advance: Callable[[RunFile], None] = lambda records: None,
) -> RunFile:
    """Run the untouched model and every method in rounds, as far as ``folder`` lacks them.

    Parameters
    ----------
    subject : Subject
        The model and its prompts.
    methods : mapping
        Methods by label.
    folder : Path or None
        Keeps every complete round; only those that are missing are run. None keeps them in memory.
    repeat : int
        Rounds.
    new_tokens : int
        Tokens generated per sample.
    advance : callable
        Told of what is there: once before the first run, and after every run.

    Returns
    -------
    RunFile
        All runs, and the costs of all methods.

    Raises
    ------
    UnsupportedModelError, UnsupportedGenerationError
        If the model cannot be trimmed (this way).
    ParameterError, ValueError
        If a method's parameters do not fit the model, or ``repeat`` or ``new_tokens`` is less than 1.
    ResumeError
        If ``folder`` belongs to another benchmark, or to another machine or version.
    BenchmarkError
        If a generation cannot be measured.

    Notes
    -----
    A method that ranks by a guide makes the guide generate as many tokens as the model. Weights of methods and guides
    count as held before a run.
    """
    for name, value in (("repeat", repeat), ("new_tokens", new_tokens)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    if UNTOUCHED in methods:
        raise ValueError(f"{UNTOUCHED!r} is the label of the untouched model: give the method another")
    spec = describe(subject.model)
    # Refuse what does not fit before the first run is waited for.
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
    """Refuse a method that the model cannot run, or whose tokens would not be the model's."""
    prepare_trim(subject.model, method)
    guidance = method.fitted(spec.facts).guidance if method.ranks_by == "guide" else None
    if guidance is not None and guidance.exit_threshold is not None:
        raise BenchmarkError(
            f"{label} may let its guide answer alone, which generates no tokens of the model to be timed: choose no "
            "exit_threshold"
        )


def check_resumed(folder: Path, wanted: Wanted, methods: Mapping[str, Method]) -> None:
    """Refuse a folder of another benchmark before a model is made, as far as that can be told.

    Raises
    ------
    ResumeError
        See `measure`.
    """
    names = ("model", "layers", "hidden", "batch", "visual_tokens", "text_tokens", "new_tokens", "attn")
    asked = {name: value for name in names if (value := getattr(wanted, name)) is not None}
    check_settings(folder / RUNS, {**_conditions(), **asked, "methods": _notations(methods)})


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
        # Methods that are written alike may have other files or another guide.
        "identities": {label: method_hash(method, spec.facts) for label, method in methods.items()},
    }


def _warmed(subject: Subject, sides: Mapping[str, Method | None]) -> list[str]:
    """Labels of those that run once before the first round, for what is only done once.

    On an accelerator, kernels are chosen and compiled for the shapes of each method. On a processor it is the weights
    that are read and the threads that are started, which every method shares; there, a generation may take minutes.
    """
    return list(sides) if subject.model.device.type != "cpu" else [UNTOUCHED]


def _timed(subject: Subject, spec: ModelSpec, method: Method | None, new_tokens: int) -> Timed:
    length = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
    timed = time_generation(subject.model, spec, method, subject.inputs, do_sample=False, **length)
    if (made := 1 + len(timed.times.steps)) != new_tokens:
        raise BenchmarkError(
            f"the model generated {made} tokens instead of {new_tokens}: its generation config ends answers "
            "in another way, such as max_time or forced tokens; take that out of model.generation_config"
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
