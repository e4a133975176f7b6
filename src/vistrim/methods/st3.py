"""ST³: Spatial-Temporal visual token trimming."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import Decay, tokens_kept
from vistrim.methods.base.attention_schedule import AttentionSchedule
from vistrim.methods.base.method import Method
from vistrim.methods.base.registry import register
from vistrim.methods.pvtp import PVTP
from vistrim.methods.vta import DEFAULT_FLOOR, DEFAULT_HORIZON, VTA


@register
@dataclass(frozen=True)
class ST3(AttentionSchedule):
    r"""Trim visual tokens across layers in prefill (PVTP) and in the cache of every layer while decoding (VTA).

    Layer ``l`` keeps, at decoding step ``t`` (0 in prefill),

    .. math:: G(l, t) = \lfloor N (1 - R)^{K(l)} f(t) + 1/2 \rfloor,
        \quad \text{at least } \lceil floor \cdot N (1 - R)^{K(l)} \rceil

    visual tokens. These are the tokens that receive the most attention at layer ``l - 1`` (mean over heads), from the
    last prompt token in prefill and from the token being processed while decoding. Ties go to the earlier token.

    Parameters
    ----------
    start_layer, stride, ratio
        The cuts across layers; see `PVTP`.
    decay, horizon, floor, interval
        The annealing over generated tokens; see `VTA`.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2412.20105 (AAAI 2025). There is no official code, and the hyperparameters of the paper were not
    available. The formula is our reading. All default values and presets are choices of this project.
    """

    name = "st3"
    summary = "ST³: trims across layers in prefill and anneals the KV cache while decoding"
    stages = ("prefill", "decode")
    kv_cache = "smaller after each cut, shrinks while decoding"
    source = "arXiv 2412.20105 (our reading)"

    start_layer: int | None = None
    stride: int | None = None
    ratio: float = 0.3
    decay: Decay = "cosine"
    horizon: int = DEFAULT_HORIZON
    floor: float = DEFAULT_FLOOR
    interval: int = 1

    def __post_init__(self) -> None:
        # Constructing both halves checks every parameter.
        _ = self.spatial, self.temporal

    @classmethod
    def preset(cls, name: Literal["balanced", "compact"]) -> "ST3":
        """Build one of the presets of this project. Those of the paper are not published.

        Parameters
        ----------
        name : {"balanced", "compact"}
            "balanced", the default, cuts to about 43 % of the KV cache in prefill. It anneals slowly, so that this
            fraction stays about the same while the cache of the untouched model grows. "compact" cuts to about 30 % in
            prefill and does not anneal. ``ST3(horizon=64, floor=0.1)`` anneals to the paper's "about 30 %" on average
            and loses many facts in long descriptions (docs/evaluation.md). All figures are for 32 layers, 576 visual
            tokens and 64 text tokens.

        Raises
        ------
        ValueError
            If there is no such preset.
        """
        if name == "balanced":
            return cls()
        if name == "compact":
            return cls(ratio=0.5, decay="constant")
        raise ValueError(f"unknown preset {name!r}: choose balanced or compact")

    @cached_property
    def spatial(self) -> PVTP:
        """The cuts across layers."""
        return PVTP(self.start_layer, self.stride, self.ratio)

    @cached_property
    def temporal(self) -> VTA:
        """The annealing over generated tokens."""
        return VTA(self.decay, self.horizon, self.floor, self.interval)

    @property
    def acts_in_decode(self) -> bool:
        """False for the constant decay."""
        return self.temporal.acts_in_decode

    def fitted(self, model: ModelFacts) -> Method:
        """Check that the decoder has the layer of the first cut."""
        self.spatial.fitted(model)
        return self

    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """Return ``G(l, t)``."""
        return tokens_kept(n, self.spatial.retention(layer, depth), self.temporal.factor(step), self.floor)

    def is_due(self, step: int) -> bool:
        """Return True at every ``interval``-th step."""
        return self.temporal.is_due(step)
