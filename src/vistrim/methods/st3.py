"""ST³: Spatial-Temporal visual token trimming."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Literal

from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import SMALLEST_SHARE, Decay, tokens_kept
from vistrim.core.selection import Selection
from vistrim.methods.base.attention_schedule import AttentionSchedule
from vistrim.methods.base.cut_schedule import CutSchedule, load_cut_schedule, schedule_path, schedules_beside
from vistrim.methods.base.method import DecodeRows, Method
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens
from vistrim.methods.fitted_st3 import FittedST3
from vistrim.methods.pvtp import DROP_PER_CUT, PVTP
from vistrim.methods.vta import DEFAULT_FLOOR, DEFAULT_HORIZON, DEFAULT_INTERVAL, VTA

AUTO = "auto"
AUTO_BUDGET = "flops=0.5"
"""Budget of the schedule that "auto" names."""


@register
@dataclass(frozen=True)
class ST3(AttentionSchedule):
    r"""Trim visual tokens across layers in prefill (PVTP) and in the cache of every layer while decoding (VTA).

    Layer ``l`` keeps, at decoding step ``t`` (0 in prefill),

    .. math:: G(l, t) = \lfloor N (1 - R)^{K(l)} f(t) + 1/2 \rfloor,
        \quad \text{at least } \lceil floor \cdot N (1 - R)^{K(l)} \rceil

    visual tokens. These are the tokens that receive the most attention at layer ``l - 1`` (mean over heads), from the
    last prompt token in prefill and from ``decode_rows`` while decoding. Ties go to the earlier token.

    Parameters
    ----------
    start_layer, stride, drop_per_cut
        The cuts across layers; see `PVTP`.
    decay, horizon, floor, interval, decode_rows, spread
        The annealing over generated tokens; see `VTA`.
    schedule : str, optional
        Instead of all these: a file that ``vistrim calibrate st3`` wrote for the model, or "auto" for the schedule in
        the folder ``vistrim`` of the model that was fitted at half of the FLOPs. A fitted schedule may differ from the
        formula in its cuts and in what ranks; reports say in what.
    mean_keep : float, optional
        Share of the visual tokens, mean over the layers, to which the shares of the schedule are scaled. With "auto",
        the schedule with the nearest mean is scaled. None: as in the file.

    Raises
    ------
    ValueError
        If a parameter is out of range, or a schedule is given with parameters of the formula. When the method is
        applied to a model, if there is no such schedule, or it is for another model.

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
    written_if_set = ("decode_rows", "spread", "schedule", "mean_keep")

    start_layer: int | None = None
    stride: int | None = None
    drop_per_cut: float = DROP_PER_CUT
    decay: Decay = "cosine"
    horizon: int = DEFAULT_HORIZON
    floor: float | tuple[float, ...] = DEFAULT_FLOOR
    interval: int = DEFAULT_INTERVAL
    decode_rows: DecodeRows = "token"
    spread: float = 0.0
    schedule: str | None = None
    mean_keep: float | None = None

    def __post_init__(self) -> None:
        # Constructing both halves checks every parameter.
        _ = self.spatial, self.temporal
        own = [field.name for field in fields(self) if field.name not in ("schedule", "mean_keep")]
        given = [name for name in own if getattr(self, name) != getattr(type(self), name)]
        if self.schedule is not None and given:
            raise ValueError(f"st3 takes either a schedule or {', '.join(given)}: remove one of them")
        if self.mean_keep is not None and self.schedule is None:
            raise ValueError("mean_keep scales a schedule: add one, as in st3:schedule=auto,mean_keep=0.3")
        if self.mean_keep is not None and not 0 < self.mean_keep <= 1:
            raise ValueError(f"mean_keep={self.mean_keep}: must be above 0 and at most 1 (the mean share that is kept)")

    def __str__(self) -> str:
        """Return the notation: the parameters of the formula, or the schedule."""
        written = super().__str__()
        return written if self.schedule is None else f"{self.name}:{written[written.index(',schedule=') + 1 :]}"

    @property
    def budget_parameter(self) -> str:  # type: ignore[override]
        """``drop_per_cut``, or ``mean_keep`` of a schedule."""
        return "drop_per_cut" if self.schedule is None else "mean_keep"

    @classmethod
    def preset(cls, name: Literal["balanced", "compact", "annealed"]) -> "ST3":
        """Build one of the presets of this project. Those of the paper are not published.

        Parameters
        ----------
        name : {"balanced", "compact", "annealed"}
            "balanced", the default, cuts to about 43 % of the KV cache in prefill. It anneals slowly, so that this
            fraction stays about the same while the cache of the untouched model grows. "compact" cuts to about 30 % in
            prefill and does not anneal. "annealed" cuts as "balanced" and anneals within 64 tokens to a tenth, which is
            about 30 % on average over an answer of 64 to 256 tokens. It loses many facts in long descriptions
            (docs/results.md). All figures are for 32 layers, 576 visual tokens and 64 text tokens.

        Raises
        ------
        ValueError
            If there is no such preset.
        """
        if name == "balanced":
            return cls()
        if name == "compact":
            return cls(drop_per_cut=0.68, decay="constant")
        if name == "annealed":
            return cls(horizon=64, floor=0.1)
        raise ValueError(f"unknown preset {name!r}: choose balanced, compact or annealed")

    @cached_property
    def spatial(self) -> PVTP:
        """The cuts across layers."""
        return PVTP(self.start_layer, self.stride, self.drop_per_cut)

    @cached_property
    def temporal(self) -> VTA:
        """The annealing over generated tokens."""
        return VTA(self.decay, self.horizon, self.floor, self.interval, self.decode_rows, self.spread)

    @property
    def evicts_by(self) -> DecodeRows:  # type: ignore[override]
        """Ranking rows while decoding: ``decode_rows``."""
        return self.decode_rows

    @property
    def acts_in_decode(self) -> bool:
        """False for the constant decay."""
        return self.temporal.acts_in_decode

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Let a share stay at each cut, or scale the shares of the schedule to a mean."""
        if self.schedule is None:
            return replace(self, drop_per_cut=1.0 - share)
        # Layers before the first cut hold all visual tokens.
        least = min(found.cuts.layers[0] for found in self._schedules(model)) / model.decoder.layers
        return replace(self, mean_keep=max(share, least + SMALLEST_SHARE))

    def fitted(self, model: ModelFacts) -> Method:
        """Check that the layers of cuts and floors are those of the decoder, or load the schedule."""
        if self.schedule is None:
            self.spatial.fitted(model)
            self.temporal.fitted(model)
            return self
        found = self._nearest(model)
        cuts, depth = found.cuts, model.decoder.layers
        if self.mean_keep is not None:
            cuts = cuts.with_mean_keep(self.mean_keep, depth)
        return FittedST3(
            cuts, VTA(**asdict(found.annealing)), depth, f"fitted to {found.model or 'this model'} at {found.budget}"
        )

    def _schedules(self, model: ModelFacts) -> list[CutSchedule]:
        assert self.schedule is not None
        return schedules_beside(model) if self.schedule == AUTO else [load_cut_schedule(self.schedule, model)]

    def _nearest(self, model: ModelFacts) -> CutSchedule:
        found, depth = self._schedules(model), model.decoder.layers
        if self.schedule != AUTO:
            return found[0]
        if self.mean_keep is None:
            asked = [one for one in found if one.budget == AUTO_BUDGET]
            if not asked:
                raise ValueError(
                    f"the schedules of st3 for {model.name!r} are for {', '.join(one.budget for one in found)}, and "
                    f"none for {AUTO_BUDGET}: give a budget, or make one with `vistrim calibrate st3`"
                )
            return asked[0]
        mean_keep = self.mean_keep
        able = [one for one in found if one.cuts.layers[0] / depth < mean_keep] or found
        return min(able, key=lambda one: abs(one.cuts.mean_keep(depth) - mean_keep))

    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """Return ``G(l, t)``."""
        retention, temporal = self.spatial.retention(layer, depth), self.temporal
        return tokens_kept(n, retention, temporal.factor(step), temporal.floor_of(layer))

    def is_due(self, step: int) -> bool:
        """Return True at every ``interval``-th step."""
        return self.temporal.is_due(step)

    def select_decode(self, layer: int, counts: Sequence[int], tokens: LayerTokens) -> Selection:
        """Choose the tokens that stay in a layer's cache, as in `VTA`."""
        return self.temporal.select_decode(layer, counts, tokens)


def default_for(model: ModelFacts) -> ST3:
    """Return the method of commands that were given none.

    Parameters
    ----------
    model : ModelFacts
        The model.

    Returns
    -------
    ST3
        With ``schedule="auto"`` if there is such a schedule beside the model, else the closed form.
    """
    there = model.folder is not None and schedule_path(model.folder, AUTO_BUDGET).is_file()
    return ST3(schedule=AUTO) if there else ST3()
