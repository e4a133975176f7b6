"""Which cells of the family matrix every run has, and which are left to ``make test-slow`` and ``make support``.

Families that differ in structure run whole. For the others, what could break is that a part is not found or a tensor is
not cut: a method that keeps everything, ST³ and one composition on a padded batch show that.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest

WHOLE = frozenset(
    {
        "llava",  # one image size, 1-D RoPE
        "llava_next",  # tiles without padding, newline tokens
        "internvl",  # tiles of merged patches; frames of a video
        "idefics3",  # images along a second dimension, a mask of their pixels
        "video_llava",  # a tower for images and one for videos
        "qwen2_5_vl",  # images of any size, M-RoPE
        "qwen3_vl",  # DeepStack
        "hunyuan_vl",  # RoPE with four axes
        "gemma3",  # sliding windows, images that look both ways
        "paligemma",  # prompts that look both ways
        "llama4",  # chunked layers, layers without RoPE
        "ernie4_5_vl_moe",  # layers are told which tokens are visual
        "kimi_k25",  # compressed keys and values
    }
)
ALWAYS = {("nothing cut", None), ("all", "st3"), ("all", "uniform+pvtp+vta")}
"""Stages and cases that every family runs, on a padded batch."""


def in_every_run(family: str, stage: str | None, case: str | None, batch: str | None) -> bool:
    """Whether ``make test`` runs a cell: a stage and a case on a batch, or a way to generate (no stage)."""
    return family in WHOLE or ((stage, case) in ALWAYS and batch == "padded")


def slow_beside(families: Collection[str], cases: Iterable[Any]) -> list[Any]:
    """Cases, names of families or tuples that begin with one; those of other families than these are slow."""
    return slow_unless(lambda case: (case if isinstance(case, str) else case[0]) in families, cases)


def slow_unless(quick: Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
    """Cases, of which those that are not quick are slow."""
    marks = {True: (), False: (pytest.mark.slow,)}
    return [pytest.param(*([case] if isinstance(case, str) else case), marks=marks[quick(case)]) for case in cases]
