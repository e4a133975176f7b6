"""Settings of a task's answers: from lmms-eval's generation arguments to those of ``generate``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vistrim.errors import InputError

PASSED = (
    "min_new_tokens",
    "num_beams",
    "length_penalty",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "early_stopping",
)
"""Arguments that have the same meaning in ``generate``."""
SAMPLING = ("temperature", "top_p", "top_k")
"""Arguments for sampling only; tasks set them beside greedy answers, too."""
LIMITS = ("max_new_tokens", "max_gen_toks")
STOPS = ("until", "stop_sequences")
OF_OTHER_MODELS = ("image_aspect_ratio", "visual_cot", "max_agentic_steps")
"""Arguments that tasks set for other models or for the evaluator."""


@dataclass(frozen=True)
class Settings:
    """Settings of answers.

    Attributes
    ----------
    generate : dict
        Arguments of ``generate``, without the length.
    max_new_tokens : int or None
        Longest answer; None: the task sets no limit.
    stops : tuple of str
        Texts at which an answer ends.
    """

    generate: dict[str, Any]
    max_new_tokens: int | None
    stops: tuple[str, ...]


def read_settings(arguments: Mapping[str, Any]) -> Settings:
    """Translate the generation arguments of a task.

    Parameters
    ----------
    arguments : mapping
        Of the task, with those of ``--gen_kwargs``. Values of None are as good as missing. ``temperature`` above 0
        means sampling, unless ``do_sample`` says otherwise.

    Returns
    -------
    Settings

    Raises
    ------
    InputError
        If an argument is not known, or asks for several answers.
    """
    given = {name: value for name, value in arguments.items() if value is not None and name not in OF_OTHER_MODELS}
    known = (*PASSED, *SAMPLING, *LIMITS, *STOPS, "do_sample")
    if unknown := [name for name in given if name not in known]:
        raise InputError(
            f"the model vistrim cannot follow the generation argument {', '.join(unknown)}: leave it out of the task "
            f"and of --gen_kwargs. Known are {', '.join(known)}"
        )
    temperature = float(given.get("temperature", 1.0 if given.get("do_sample") else 0.0))
    samples = bool(given.get("do_sample", True)) and temperature > 0
    generate = {name: given[name] for name in PASSED if name in given} | {"do_sample": samples}
    if samples:
        generate |= {name: given[name] for name in SAMPLING if name in given}
    limits = [int(given[name]) for name in LIMITS if name in given]
    stops = [stop for name in STOPS for stop in _texts(given.get(name, []))]
    return Settings(generate, limits[0] if limits else None, tuple(dict.fromkeys(filter(None, stops))))


def _texts(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def group_key(arguments: Mapping[str, Any]) -> str:
    """Key of requests that can be answered in one batch."""
    return json.dumps(arguments, sort_keys=True, default=str)


def batches(arguments: Sequence[Mapping[str, Any]], size: int) -> list[list[int]]:
    """Split requests into batches with equal generation arguments.

    Parameters
    ----------
    arguments : sequence of mappings
        Generation arguments of each request.
    size : int
        Largest batch.

    Returns
    -------
    list of list of int
        Places of the requests, in their order within each group.
    """
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(arguments):
        groups.setdefault(group_key(one), []).append(place)
    return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]


def cut_at_stops(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first stop string."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)].strip() if ends else text
