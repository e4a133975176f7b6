"""VTA: Visual Token Annealing, the temporal half of ST³."""

from dataclasses import dataclass

from vistrim.core.schedules import DECAYS, Decay, decay_factor, tokens_kept
from vistrim.methods.base.attention_schedule import AttentionSchedule
from vistrim.methods.base.registry import register

DEFAULT_HORIZON = 256
"""Chosen on the long descriptions of the reference model: the shortest horizon (of 64, 128 and 256) at which annealing
alone loses less than one percent of the facts. At 64 it loses a third. See docs/results.md."""

MAX_HORIZON = 1_000_000

DEFAULT_FLOOR = 0.5
"""Chosen in the same way: if a short horizon reaches the floor, 0.5 keeps clearly more facts than 0.3 or 0.1, for at
most 4 % more of the KV cache."""


@register
@dataclass(frozen=True)
class VTA(AttentionSchedule):
    r"""Evict visual tokens from the KV cache of every layer as the answer grows.

    At decoding step ``t``, each layer keeps :math:`G(t) = \lfloor N f(t) + 1/2 \rfloor` visual tokens, at least
    :math:`\lceil floor \cdot N \rceil`. These are the tokens that receive the most attention from the token being
    processed at the layer before. Layer 0 uses its own attention from the previous step. Evicted keys and values cannot
    be restored.

    Parameters
    ----------
    decay : {"constant", "linear", "cosine", "exponential"}
        Shape of ``f``; see `vistrim.core.schedules.decay_factor`.
    horizon : int
        Number of generated tokens over which the visual tokens are annealed, at least 1.
    floor : float
        Share of the visual tokens that always stays, in [0, 1].
    interval : int
        Steps from one eviction to the next, at least 1. A larger value costs less time.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: ST³, arXiv 2412.20105, in which the number of tokens kept in each layer depends on the length of the
    generated text. There is no official code. The formula and all default values are our reading and our choice.
    """

    name = "vta"
    summary = "Evicts visual tokens from the KV cache of each layer as the answer grows (the temporal half of ST³)"
    stages = ("decode",)
    kv_cache = "shrinks in every layer while decoding"
    source = "arXiv 2412.20105 (our reading)"

    budget_parameter = "floor"

    decay: Decay = "cosine"
    horizon: int = DEFAULT_HORIZON
    floor: float = DEFAULT_FLOOR
    interval: int = 1

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise ValueError(f"decay={self.decay!r}: must be one of {', '.join(DECAYS)}")
        if not 1 <= self.horizon <= MAX_HORIZON:
            raise ValueError(f"horizon={self.horizon}: must be between 1 and {MAX_HORIZON:,} generated tokens")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor={self.floor}: must be between 0 and 1 (the share that always stays)")
        if self.interval < 1:
            raise ValueError(f"interval={self.interval}: must be at least 1")

    @property
    def acts_in_decode(self) -> bool:
        """False for the constant decay, which never drops anything."""
        return self.decay != "constant"

    def factor(self, step: int) -> float:
        """Return ``f(t)``."""
        return decay_factor(self.decay, step, self.horizon)

    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """Return ``G(t)``, which is the same at every layer."""
        return tokens_kept(n, 1.0, self.factor(step), self.floor)

    def is_due(self, step: int) -> bool:
        """Return True at every ``interval``-th step."""
        return step % self.interval == 0
