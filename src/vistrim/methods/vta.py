"""VTA: Visual Token Annealing, the temporal half of ST³."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import DECAYS, Decay, decay_factor, tokens_kept
from vistrim.core.selection import Selection
from vistrim.core.spacing import keep_top_and_spaced
from vistrim.methods.base.attention_schedule import AttentionSchedule
from vistrim.methods.base.method import DecodeRows, Method
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens

DEFAULT_HORIZON = 256
"""Chosen on the long descriptions of the reference model: the shortest horizon (of 64, 128 and 256) at which annealing
alone loses less than one percent of the facts. At 64 it loses a third. See docs/results.md."""

MAX_HORIZON = 1_000_000

DEFAULT_FLOOR = 0.5
"""Chosen in the same way: if a short horizon reaches the floor, 0.5 keeps clearly more facts than 0.3 or 0.1, for at
most 4 % more of the KV cache."""

DEFAULT_INTERVAL = 8
"""Chosen on measured times: with 2928 visual tokens and a batch of 8, evictions at every step made a decoding step more
than twice as long as evictions every 8 steps. See docs/concepts/performance.md."""


@register
@dataclass(frozen=True)
class VTA(AttentionSchedule):
    r"""Evict visual tokens from the KV cache of every layer as the answer grows.

    At decoding step ``t``, each layer keeps :math:`G(t) = \lfloor N f(t) + 1/2 \rfloor` visual tokens, at least
    :math:`\lceil floor \cdot N \rceil`. These are the tokens that receive the most attention from the token being
    processed at the layer before. Layer 0 uses its own attention from the previous step. Evicted keys and values cannot
    be restored.

    Ranking by the current token forgets what the answer has not reached yet. ``decode_rows``, ``spread`` and floors per
    layer choose otherwise; none of them changes the number of tokens at a step, except for the floors.

    Parameters
    ----------
    decay : {"constant", "linear", "cosine", "exponential"}
        Shape of ``f``; see `vistrim.core.schedules.decay_factor`.
    horizon : int
        Number of generated tokens over which the visual tokens are annealed, at least 1.
    floor : float or tuple of float
        Share of the visual tokens that always stays, in [0, 1]. A tuple has one share for each decoder layer.
    interval : int
        Steps from one eviction to the next, at least 1. A larger value costs less time.
    decode_rows : {"token", "answer", "prompt"}
        Ranking rows: the token being processed, all tokens of the answer so far and the last prompt token (mean), or
        all text of the prompt after the last image (mean). "answer" reads the attention of every layer at every step,
        whatever the interval. "prompt" reads it in prefill only, so that the ranking never changes.
    spread : float
        Share of the kept tokens, in [0, 1], that is evenly spaced over the images instead of ranked
        (`vistrim.core.spacing`). The same tokens remain from step to step.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: ST³, arXiv 2412.20105, in which the number of tokens kept in each layer depends on the length of the
    generated text. There is no official code. The formula and all default values are our reading and our choice. The
    literal reading of the ranking is ``decode_rows="token"``, ``spread=0`` and one floor, the default.
    """

    name = "vta"
    summary = "Evicts visual tokens from the KV cache of each layer as the answer grows (the temporal half of ST³)"
    stages = ("decode",)
    kv_cache = "shrinks in every layer while decoding"
    source = "arXiv 2412.20105 (our reading)"

    budget_parameter = "floor"
    written_if_set = ("decode_rows", "spread")

    decay: Decay = "cosine"
    horizon: int = DEFAULT_HORIZON
    floor: float | tuple[float, ...] = DEFAULT_FLOOR
    interval: int = DEFAULT_INTERVAL
    decode_rows: DecodeRows = "token"
    spread: float = 0.0

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise ValueError(f"decay={self.decay!r}: must be one of {', '.join(DECAYS)}")
        if not 1 <= self.horizon <= MAX_HORIZON:
            raise ValueError(f"horizon={self.horizon}: must be between 1 and {MAX_HORIZON:,} generated tokens")
        floors = self.floor if isinstance(self.floor, tuple) else (self.floor,)
        if not all(0 <= floor <= 1 for floor in floors):
            raise ValueError(f"floor={self.floor}: must be between 0 and 1 (the share that always stays)")
        if self.interval < 1:
            raise ValueError(f"interval={self.interval}: must be at least 1")
        if self.decode_rows not in get_args(DecodeRows):
            raise ValueError(f"decode_rows={self.decode_rows!r}: must be one of {', '.join(get_args(DecodeRows))}")
        if not 0 <= self.spread <= 1:
            raise ValueError(f"spread={self.spread}: must be between 0 and 1 (the share that is evenly spaced)")

    @property
    def acts_in_decode(self) -> bool:
        """False for the constant decay, which never drops anything."""
        return self.decay != "constant"

    @property
    def evicts_by(self) -> DecodeRows:  # type: ignore[override]
        """Ranking rows while decoding: ``decode_rows``."""
        return self.decode_rows

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Set the floor. Of several, the highest is set, and the others stay in proportion to it."""
        if not isinstance(self.floor, tuple):
            return replace(self, floor=share)
        highest = max(self.floor) or 1.0
        return replace(self, floor=tuple(share * floor / highest for floor in self.floor))

    def fitted(self, model: ModelFacts) -> "VTA":
        """Check that there is one floor for each layer."""
        depth = model.decoder.layers
        if isinstance(self.floor, tuple) and len(self.floor) != depth:
            raise ValueError(
                f"floor has {len(self.floor)} shares: give one for each of the {depth} decoder layers, or one for all"
            )
        return self

    def floor_of(self, layer: int) -> float:
        """Return the share of the visual tokens that always stays in a layer."""
        return self.floor[layer] if isinstance(self.floor, tuple) else self.floor

    def factor(self, step: int) -> float:
        """Return ``f(t)``."""
        return decay_factor(self.decay, step, self.horizon)

    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """Return ``G(t)``."""
        return tokens_kept(n, 1.0, self.factor(step), self.floor_of(layer))

    def is_due(self, step: int) -> bool:
        """Return True at every ``interval``-th step."""
        return step % self.interval == 0

    def select_decode(self, layer: int, counts: Sequence[int], tokens: LayerTokens) -> Selection:
        """Keep the evenly spaced share, and of the other tokens those with the most attention."""
        if not self.spread:
            return super().select_decode(layer, counts, tokens)
        assert tokens.numbers is not None
        return keep_top_and_spaced(tokens.scores, tokens.visual, counts, tokens.numbers(), self.spread)
