"""A hybrid of three stages: fewer tokens into the decoder, fewer from layer to layer, fewer while decoding."""

from dataclasses import dataclass
from functools import cached_property

from vistrim.core.schedules import Decay
from vistrim.methods.base.composition import Composition
from vistrim.methods.base.method import Method, Positions
from vistrim.methods.base.registry import register
from vistrim.methods.pvtp import PVTP
from vistrim.methods.vispruner import VisPruner
from vistrim.methods.vta import DEFAULT_FLOOR, DEFAULT_HORIZON, VTA


@register
@dataclass(frozen=True)
class Hybrid(Composition):
    """`VisPruner` lets half of the tokens in, `PVTP` cuts inside the decoder, `VTA` anneals while decoding.

    Parameters
    ----------
    keep : int or float
        Tokens per image that enter the decoder; see `VisPruner`.
    positions : {"original", "renumber"}
        RoPE positions of those that enter.
    start_layer, stride, ratio
        The cuts across layers, from what has entered; see `PVTP`.
    decay, horizon, floor, interval
        The annealing over generated tokens, from what has entered; see `VTA`.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    This combination and its defaults are this project's own, chosen on the reference model's validation questions among
    FasterVLM and VisPruner with both kinds of positions (docs/evaluation.md). They leave about 21 % of the tokens on
    average. Other combinations are one `vistrim.compose` away.
    """

    name = "hybrid"
    summary = "VisPruner to half before the decoder, PVTP inside, VTA while decoding"
    stages = ("input", "prefill", "decode")
    needs = "what vispruner and pvtp need"
    kv_cache = "small from the start, smaller from cut to cut, and shrinks while decoding"
    source = "this project"

    keep: int | float = 0.5
    positions: Positions = "original"
    start_layer: int | None = None
    stride: int | None = None
    ratio: float = 0.3
    decay: Decay = "cosine"
    horizon: int = DEFAULT_HORIZON
    floor: float = DEFAULT_FLOOR
    interval: int = 1

    def __post_init__(self) -> None:
        # Building the parts checks every parameter.
        _ = self.parts

    @cached_property
    def parts(self) -> tuple[Method, ...]:
        """One for each stage."""
        return (
            VisPruner(self.keep, positions=self.positions),
            PVTP(self.start_layer, self.stride, self.ratio),
            VTA(self.decay, self.horizon, self.floor, self.interval),
        )
