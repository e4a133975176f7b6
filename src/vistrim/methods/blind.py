"""Blind: keep no visual token at all (a baseline)."""

from dataclasses import dataclass

import torch

from vistrim.core.selection import Selection
from vistrim.methods.base.method import Method
from vistrim.methods.base.registry import register
from vistrim.methods.base.sample_sizes import SampleSizes
from vistrim.methods.base.stage_inputs import InputTokens


@register
@dataclass(frozen=True)
class Blind(Method):
    """Remove all visual tokens before the decoder: what the language model guesses from the text.

    A baseline: a method that scores no better on a task has not looked, or the task needs no image. It is the one
    method that may keep nothing. A placeholder that ends the prompt stays, as with every method.

    Notes
    -----
    Text keeps its positions, so that the question stands where it stood behind the image.
    """

    name = "blind"
    summary = "Keeps no visual token: the answer is a guess from the text (baseline)"
    stages = ("input",)
    kv_cache = "text alone"
    source = "baseline"
    unbudgeted = "it keeps no visual token and has no parameter"

    def input_count(self, sample: SampleSizes) -> int:
        """Return 0."""
        return 0

    def select_input(self, tokens: InputTokens) -> Selection:
        """Keep nothing."""
        return Selection(torch.zeros_like(tokens.visual), (0,) * len(tokens.visual))
