"""Settings of a guide model."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Guidance:
    """Settings of a method that ranks by a guide model.

    The guide model is a smaller model that answers the prompt first. Its attention scores the visual tokens. If its
    confidence is high enough, its answer is returned and the large model does not run.

    Attributes
    ----------
    guide : nn.Module
        A multimodal model for generation, with the same visual tokens.
    exit_threshold : float or None
        Confidence above which the answer of the guide model is returned. None: no early exit.
    consistency_share : float
        Share of the visual tokens, those with the highest score, with which the guide model reads its answer again to
        compute the confidence.
    """

    guide: nn.Module
    exit_threshold: float | None
    consistency_share: float
