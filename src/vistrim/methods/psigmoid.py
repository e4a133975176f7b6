"""P-Sigmoid: keep rates that fall with depth like a sigmoid and have a given mean."""

from dataclasses import dataclass, replace

from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import SMALLEST_SHARE
from vistrim.core.sigmoid import sigmoid_rates
from vistrim.errors import ParameterError
from vistrim.methods.base.keep_rates import KeepRates
from vistrim.methods.base.method import Method
from vistrim.methods.base.registry import register
from vistrim.methods.base.schedule_file import load_rates


@register
@dataclass(frozen=True)
class PSigmoid(Method):
    r"""Keep a share of visual tokens that falls with depth like a sigmoid and has a given mean over the layers.

    Before layer :math:`l \ge 1`, the :math:`\lceil r_l N \rceil` visual tokens stay that receive the most attention
    from the last prompt token at layer :math:`l - 1` (mean over heads). They keep their positions.

    .. math:: r_0 = 1, \quad r_l = c \, \sigma(\kappa (\alpha - l - 1/2)), \quad \frac{1}{L} \sum_l r_l = b,

    where :math:`\alpha(\kappa, b)` has a closed form, see `vistrim.core.sigmoid`. A sigmoid never reaches 0, so at
    least one token stays in every layer.

    Parameters
    ----------
    schedule : str, optional
        File that ``vistrim calibrate psigmoid`` wrote for the model, instead of ``mean_keep`` and ``kappa``. It may
        also set the ranking rows to all text after the last image.
    mean_keep : float, optional
        :math:`b`, the mean keep rate over all layers: from ``1 / layers`` to 1.
    kappa : float, optional
        Steepness :math:`\kappa` of the sigmoid, per layer. With a small value, all layers from 1 on have the same rate.
        With a large value, nearly everything stays up to layer :math:`bL` and hardly anything after it.

    Raises
    ------
    ValueError
        If ``mean_keep`` or ``kappa`` is out of range, if only one of them is given, or if there is a schedule as well.
        When the method is applied to a model, if nothing is given or the schedule is for another method or model.

    Notes
    -----
    Source: arXiv 2412.00556 (CVPR 2025). There is no official code. The sigmoid and the search for its steepness are
    from the paper. The midpoint, the full layer 0, the ranking rows and the positions are our reading or our choice.
    """

    name = "psigmoid"
    summary = "Keeps a share of visual tokens that falls with depth like a sigmoid, at a given mean"
    stages = ("prefill",)
    needs = "mean_keep and kappa, or a schedule from vistrim calibrate; " + KeepRates.needs
    kv_cache = KeepRates.kv_cache
    source = "arXiv 2412.00556 (our reading)"

    budget_parameter = "mean_keep"

    schedule: str | None = None
    mean_keep: float | None = None
    kappa: float | None = None

    def __post_init__(self) -> None:
        given = self.mean_keep is not None, self.kappa is not None
        if self.schedule is not None and any(given):
            raise ValueError("psigmoid takes either a schedule or mean_keep and kappa: remove one of them")
        if given[0] != given[1]:
            raise ValueError(
                f"mean_keep={self.mean_keep}, kappa={self.kappa}: give both, as in psigmoid:mean_keep=0.33,kappa=0.5"
            )
        if self.mean_keep is not None and not 0 < self.mean_keep <= 1:
            raise ValueError(f"mean_keep={self.mean_keep}: must be above 0 and at most 1 (the mean share that is kept)")
        if self.kappa is not None and not self.kappa > 0:
            raise ValueError(f"kappa={self.kappa}: must be above 0 (the steepness of the sigmoid)")

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Set the mean keep rate, or multiply the rates of the schedule by one factor."""
        if self.schedule is not None:
            return load_rates(self.schedule, self.name, model).with_share(share, model)
        if self.kappa is None:
            raise ParameterError(
                "psigmoid needs kappa or a schedule: at a budget, which sets mean_keep, write "
                "psigmoid:mean_keep=1.0,kappa=0.5 or psigmoid:schedule=FILE"
            )
        # Layer 0 always processes all visual tokens, and each of the others at least one.
        return replace(self, mean_keep=max(share, 1 / model.decoder.layers + SMALLEST_SHARE))

    def fitted(self, model: ModelFacts) -> Method:
        """Load the rates of the schedule, or compute those of the sigmoid."""
        if self.schedule is not None:
            return load_rates(self.schedule, self.name, model)
        if self.mean_keep is None or self.kappa is None:
            raise ValueError(
                "psigmoid needs mean_keep and kappa, as in psigmoid:mean_keep=0.33,kappa=0.5, or a schedule for the "
                "model: make one with `vistrim calibrate psigmoid --out FILE` and use psigmoid:schedule=FILE"
            )
        return KeepRates(sigmoid_rates(self.kappa, self.mean_keep, model.decoder.layers))
