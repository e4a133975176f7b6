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
    r"""Trim visual tokens across layers in prefill (PVTP) and in every layer's cache while decoding (VTA).

    Layer ``l`` keeps, at decoding step ``t`` (0 in prefill),

    .. math:: G(l, t) = \lfloor N (1 - R)^{K(l)} f(t) + 1/2 \rfloor,
        \quad \text{at least } \lceil floor \cdot N (1 - R)^{K(l)} \rceil

    visual tokens: those that receive most attention at layer ``l - 1``, from the last prompt token in prefill and
    from the token being processed in decode; mean over heads, ties to the earlier token.

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
    Source: arXiv 2412.20105 (AAAI 2025). There is no official code, and the paper's hyper-parameters were not
    available: the formula is this project's reading, and all default values and presets are this project's own.
    """

    name = "st3"
    summary = "ST³: trims across layers in prefill and anneals the KV cache while decoding"
    stages = ("prefill", "decode")
    kv_cache = "smaller from cut to cut, and shrinks while decoding"
    source = "arXiv 2412.20105 (our reading)"

    start_layer: int | None = None
    stride: int | None = None
    ratio: float = 0.3
    decay: Decay = "cosine"
    horizon: int = DEFAULT_HORIZON
    floor: float = DEFAULT_FLOOR
    interval: int = 1

    def __post_init__(self) -> None:
        # Building the halves checks every parameter.
        _ = self.spatial, self.temporal

    @classmethod
    def preset(cls, name: Literal["balanced", "compact"]) -> "ST3":
        """Build one of this project's presets (the paper's are not known).

        Parameters
        ----------
        name : {"balanced", "compact"}
            "balanced", the default: cuts to about 43 % of the KV cache in prefill and anneals so slowly that it stays
            there while the untrimmed cache grows. "compact": cuts to about 30 % in prefill and does not anneal.
            ``ST3(horizon=64, floor=0.1)`` anneals to the paper's "about 30 %" on average, and loses many facts of long
            descriptions (docs/evaluation.md). (All figures are for 32 layers, 576 visual and 64 text tokens.)

        Raises
        ------
        ValueError
            If there is no such preset.
        """
        if name == "balanced":
            return cls()
        if name == "compact":
            return cls(ratio=0.5, decay="constant")
        raise ValueError(f"no preset called {name!r}: choose balanced or compact")

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
        """Refuse a first cut behind the last layer."""
        self.spatial.fitted(model)
        return self

    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """``G(l, t)``."""
        return tokens_kept(n, self.spatial.retention(layer, depth), self.temporal.factor(step), self.floor)

    def is_due(self, step: int) -> bool:
        """At every ``interval``-th step."""
        return self.temporal.is_due(step)
