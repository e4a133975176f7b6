"""Sizes of prompts and their images, found without running the model."""

from collections.abc import Mapping
from typing import Any

import torch

from vistrim.engine import ModelSpec
from vistrim.engine.attention.flash import sliding_windows
from vistrim.engine.inputs.unencoded import read_unencoded
from vistrim.errors import ParameterError
from vistrim.methods.base.sample_sizes import SampleSizes

TEXT_TOKENS = 64
"""Text tokens of the default prompt."""


def prompt_sizes(spec: ModelSpec, inputs: Mapping[str, Any] | None, new_tokens: int | None) -> list[SampleSizes]:
    """Find out the sizes of each sample of a prompt, without encoding its images.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    inputs : mapping or None
        A prompt as the processor returns it. None: the default prompt of `at_budget`.
    new_tokens : int or None
        Longest answer. None: sliding windows do not matter.

    Returns
    -------
    list of SampleSizes
        One per sample.

    Raises
    ------
    ValueError
        If there is no image, no default prompt, or prompt and answer exceed a sliding window.
    """
    if inputs is None:
        if spec.images.tokens is None:
            raise ParameterError("images of this model have several sizes: give inputs, a prompt of the processor")
        token = spec.visual_token_ids["image"]
        # Any id that is no placeholder.
        word = min({*range(len(spec.visual_token_ids) + 1)} - {*spec.visual_token_ids.values()})
        front = TEXT_TOKENS // 4
        row = [word] * front + [token] * spec.images.tokens + [word] * (TEXT_TOKENS - front)
        inputs = {"input_ids": torch.tensor([row])}
    samples = sizes_of(spec, inputs)
    if not any(sample.visual for sample in samples):
        raise ParameterError("there is no image in inputs: a budget is about visual tokens")
    if new_tokens is not None:
        check_windows(spec, inputs["input_ids"].shape[1] + new_tokens)
    return samples


def check_windows(spec: ModelSpec, tokens: int) -> None:
    """Refuse prompts and answers whose figures would depend on a sliding window.

    Raises
    ------
    ParameterError
        If there is a window with fewer tokens.
    """
    windows = [window for window in sliding_windows(spec.decoder.config) if window]
    if windows and tokens > min(windows):
        raise ParameterError(
            f"the prompt and the answer exceed a sliding window of {min(windows)} tokens: shorten them"
        )


def sizes_of(spec: ModelSpec, inputs: Mapping[str, Any]) -> list[SampleSizes]:
    """Find out the sizes of each sample of a prompt, with or without images.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    inputs : mapping
        A prompt as the processor returns it.

    Returns
    -------
    list of SampleSizes
        One per sample.
    """
    prompt = read_unencoded(spec, inputs)
    if not any(prompt.tokens.n_visual):
        return [SampleSizes(text, (), (), ()) for text in prompt.tokens.n_text]
    pictures, counts = prompt.images, prompt.images.count(prompt.tokens.visual)
    return [
        SampleSizes(text, images, tuple(picture.grid for picture in own), whole)
        for text, images, own, whole in zip(
            prompt.tokens.n_text, counts, pictures.of_sample, pictures.whole, strict=True
        )
    ]
