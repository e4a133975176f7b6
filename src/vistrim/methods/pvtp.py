"""PVTP: Progressive Visual Token Pruning, the spatial half of ST³."""

from dataclasses import dataclass, replace

from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import cuts_before, scaled_to_depth, tokens_kept
from vistrim.methods.base.attention_schedule import AttentionSchedule
from vistrim.methods.base.checks import check_layer
from vistrim.methods.base.method import Method
from vistrim.methods.base.registry import register

START_LAYER, STRIDE = 1, 14
"""Default first layer and stride, of 32 layers. Of all start layers and strides, these lose little on both reference
models at equal cost: few large cuts, of which the first is early. See docs/guides/calibration.md."""

DROP_PER_CUT = 0.5
"""Default share: with three cuts, about 43 % of the KV cache of 576 visual and 64 text tokens remain."""


@register
@dataclass(frozen=True)
class PVTP(AttentionSchedule):
    r"""Drop the least attended visual tokens at several decoder layers in prefill.

    Before layer ``start_layer`` and then every ``stride`` layers, a share ``drop_per_cut`` (:math:`R`) of the remaining
    visual tokens is dropped: :math:`G(l) = \lfloor N (1 - R)^{K(l)} + 1/2 \rfloor` tokens stay, where ``K(l)`` is the
    number of cuts so far. These are the tokens that receive the most attention from the last prompt token at the layer
    before.

    Parameters
    ----------
    start_layer : int, optional
        First layer (0-based, at least 1) that runs with fewer tokens. None: 1 of 32 layers, scaled to the depth.
    stride : int, optional
        Layers from one cut to the next. None: 14 of 32 layers, scaled to the depth.
    drop_per_cut : float
        Share of the remaining visual tokens that each cut drops, in [0, 1).

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: ST³, arXiv 2412.20105, which has a pruning stride and a pruning ratio. There is no official code. The
    geometric schedule, the query row, the start layer and all default values are our reading and our choice.
    """

    name = "pvtp"
    summary = "Drops the least attended visual tokens layer by layer in prefill (the spatial half of ST³)"
    stages = ("prefill",)
    kv_cache = "smaller after each cut"
    source = "arXiv 2412.20105 (our reading)"

    budget_parameter = "drop_per_cut"

    start_layer: int | None = None
    stride: int | None = None
    drop_per_cut: float = DROP_PER_CUT

    def __post_init__(self) -> None:
        if self.start_layer is not None and self.start_layer < 1:
            raise ValueError(
                f"start_layer={self.start_layer}: must be at least 1, because tokens are ranked by the attention of "
                "the layer before"
            )
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride={self.stride}: must be at least 1")
        if not 0 <= self.drop_per_cut < 1:
            raise ValueError(
                f"drop_per_cut={self.drop_per_cut}: must be at least 0 and below 1 (the share that each cut drops)"
            )

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Let a share stay at each cut."""
        return replace(self, drop_per_cut=1.0 - share)

    def fitted(self, model: ModelFacts) -> Method:
        """Check that the decoder has the layer of the first cut."""
        if self.start_layer is not None:
            check_layer("start_layer", self.start_layer, model.decoder.layers)
        return self

    def retention(self, layer: int, depth: int) -> float:
        """Return the share of visual tokens left by the cuts before ``layer``, ``(1 - drop_per_cut) ** K(layer)``."""
        start = self.start_layer if self.start_layer is not None else scaled_to_depth(START_LAYER, depth)
        stride = self.stride if self.stride is not None else scaled_to_depth(STRIDE, depth)
        return (1.0 - self.drop_per_cut) ** cuts_before(layer, start, stride)

    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """Return ``G(l)``, which is the same at every step."""
        return tokens_kept(n, self.retention(layer, depth))
