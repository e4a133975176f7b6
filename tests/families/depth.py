"""Which cells of the family matrix every run has, which ``make test-slow`` adds, and which only ``make support`` runs.

What a family may break is that a part is not found or a tensor is not cut: a method that keeps everything and a
composition of all stages, on a padded batch, show that of each. Families that differ in structure have every case in
every run, and half of the ways to generate each.
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
ALWAYS = {("nothing cut", None), ("all", "uniform+pvtp+vta")}
"""Stages and cases that every family runs, on a padded batch."""


def sort_cell(item: Any, cell: Any) -> None:
    """Mark a cell as slow, or as run by ``make support`` only, unless every run has it.

    A quarter of the cells has each case of each family once, with either kernel and either batch among its cases. Half
    of them have each case with either kernel and with either batch, and each way to generate with one of two methods.
    Every run has a quarter of families that differ in structure, and the slow run has half of these and a quarter of
    the others.
    """
    params, stage = item.callspec.params, cell.kwargs.get("stage")
    named = params["name"] + params.get("case", "") + cell.kwargs.get("mode", "")
    seconds = (params.get("attention") == "eager", params.get("batch") == "padded", params.get("method") == "st3")
    number = sum(named.encode())
    half = (number + sum(seconds)) % 2 == 0
    quarter = half and (number // 2 + seconds[0]) % 2 == 0
    always = (stage, params.get("case")) in ALWAYS and params["batch"] == "padded"
    whole = params["name"] in WHOLE
    if not (always or (whole and quarter)):
        item.add_marker(pytest.mark.slow)
        if not (half if whole else quarter) and (stage is not None or "method" in params):
            item.add_marker(pytest.mark.support)


def slow_beside(families: Collection[str], cases: Iterable[Any]) -> list[Any]:
    """Cases, names of families or tuples that begin with one; those of other families than these are slow."""
    return slow_unless(lambda case: (case if isinstance(case, str) else case[0]) in families, cases)


def slow_unless(quick: Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
    """Cases, of which those that are not quick are slow."""
    marks = {True: (), False: (pytest.mark.slow,)}
    return [pytest.param(*([case] if isinstance(case, str) else case), marks=marks[quick(case)]) for case in cases]
