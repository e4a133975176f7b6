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
    """Remove all visual tokens before the decoder, so that the model answers from the text alone.

    This is a baseline. If another method scores no better on a task, either it does not preserve the information of the
    image or the task does not need it. This is the only method whose decoder may get no visual token at all. A
    placeholder at the end of the prompt stays, as with every method.

    Notes
    -----
    The text keeps its RoPE positions, as if the image were still in front of it.
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
        """Keep no visual token."""
        return Selection(torch.zeros_like(tokens.visual), (0,) * len(tokens.visual))
