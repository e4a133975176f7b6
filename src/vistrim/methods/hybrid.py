"""A hybrid of three methods that cut before the decoder, across its layers and while decoding."""

from dataclasses import dataclass
from functools import cached_property

from vistrim.core.schedules import Decay
from vistrim.methods.base.composition import Composition
from vistrim.methods.base.method import Method, Positions
from vistrim.methods.base.registry import register
from vistrim.methods.pvtp import DROP_PER_CUT, PVTP
from vistrim.methods.vispruner import VisPruner
from vistrim.methods.vta import DEFAULT_FLOOR, DEFAULT_HORIZON, DEFAULT_INTERVAL, VTA


@register
@dataclass(frozen=True)
class Hybrid(Composition):
    """Keep half of the tokens with `VisPruner`, cut inside the decoder with `PVTP`, anneal in decoding with `VTA`.

    Parameters
    ----------
    keep : int or float
        Tokens per image that enter the decoder; see `VisPruner`.
    positions : {"original", "renumber"}
        RoPE positions of these tokens: unchanged or consecutive.
    start_layer, stride, drop_per_cut
        The cuts across layers, relative to the tokens that enter the decoder; see `PVTP`.
    decay, horizon, floor, interval
        The annealing over generated tokens, relative to the tokens that enter the decoder; see `VTA`.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    This combination is a choice of this project. The selector and its positions were chosen on validation questions of
    the reference model, among FasterVLM and VisPruner with both kinds of positions (docs/results.md). Cuts and
    annealing are those of `PVTP` and `VTA`. About 19 % of the tokens stay on average. For other combinations use
    `vistrim.compose`.
    """

    name = "hybrid"
    summary = "VisPruner to half of the tokens before the decoder, PVTP inside it, VTA while decoding"
    stages = ("input", "prefill", "decode")
    needs = "the same as vispruner and pvtp"
    kv_cache = "small from the start, smaller after each cut, shrinks while decoding"
    source = "this project"

    budget_parameter = "keep"

    keep: int | float = 0.5
    positions: Positions = "original"
    start_layer: int | None = None
    stride: int | None = None
    drop_per_cut: float = DROP_PER_CUT
    decay: Decay = "cosine"
    horizon: int = DEFAULT_HORIZON
    floor: float = DEFAULT_FLOOR
    interval: int = DEFAULT_INTERVAL

    def __post_init__(self) -> None:
        # Constructing the methods checks every parameter.
        _ = self.parts

    @cached_property
    def parts(self) -> tuple[Method, ...]:
        """The method of each stage."""
        return (
            VisPruner(self.keep, positions=self.positions),
            PVTP(self.start_layer, self.stride, self.drop_per_cut),
            VTA(self.decay, self.horizon, self.floor, self.interval),
        )
