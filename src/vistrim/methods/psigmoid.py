"""P-Sigmoid: keep rates that fall with depth like a sigmoid, within a given budget."""

from dataclasses import dataclass

from vistrim.core.model_facts import ModelFacts
from vistrim.core.sigmoid import sigmoid_rates
from vistrim.methods.base.keep_rates import KeepRates
from vistrim.methods.base.method import Method
from vistrim.methods.base.registry import register
from vistrim.methods.base.schedule_file import load_rates


@register
@dataclass(frozen=True)
class PSigmoid(Method):
    r"""Keep a share of the visual tokens that falls with depth like a sigmoid and whose mean over the layers is given.

    Before layer :math:`l \ge 1` the :math:`\lceil r_l N \rceil` visual tokens stay that receive most attention at layer
    :math:`l - 1`, from the last prompt token (mean over heads), with their original positions;

    .. math:: r_0 = 1, \quad r_l = c \, \sigma(\kappa (\alpha - l - 1/2)), \quad \frac{1}{L} \sum_l r_l = b,

    where :math:`\alpha(\kappa, b)` is known in closed form: see `vistrim.core.sigmoid`. A sigmoid never reaches 0, so
    that one token stays to the end.

    Parameters
    ----------
    schedule : str, optional
        A file that ``vistrim calibrate psigmoid`` wrote for the model, instead of budget and kappa. It may also say
        that all text behind the last image ranks.
    budget : float, optional
        :math:`b`, the mean keep rate over all layers: from ``1 / layers`` to 1.
    kappa : float, optional
        :math:`\kappa`, per layer: how steeply the rates fall. Small: all layers from 1 on keep the same. Large:
        everything stays up to layer :math:`bL`, and hardly anything from there on.

    Raises
    ------
    ValueError
        If budget or kappa is out of range, only one of them is given, or a schedule as well. When the model is to be
        trimmed, if nothing is given or the schedule is another method's or another model's.

    Notes
    -----
    Source: arXiv 2412.00556 (CVPR 2025). There is no official code. The paper has the sigmoid and searches its
    steepness. The midpoint that follows from the budget, layer 0 that keeps everything, which tokens' attention ranks
    and how positions are given are this project's reading or choice.
    """

    name = "psigmoid"
    summary = "Keeps a share of the visual tokens that falls with depth like a sigmoid, within a budget"
    stages = ("prefill",)
    needs = "budget and kappa, or a schedule from vistrim calibrate; " + KeepRates.needs
    kv_cache = KeepRates.kv_cache
    source = "arXiv 2412.00556 (our reading)"

    schedule: str | None = None
    budget: float | None = None
    kappa: float | None = None

    def __post_init__(self) -> None:
        given = self.budget is not None, self.kappa is not None
        if self.schedule is not None and any(given):
            raise ValueError("psigmoid takes either a schedule, or budget and kappa: leave one of them out")
        if given[0] != given[1]:
            raise ValueError(
                f"budget={self.budget}, kappa={self.kappa}: give both, as in psigmoid:budget=0.33,kappa=0.5"
            )
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ValueError(f"budget={self.budget}: must be above 0 and at most 1 (the mean share that is kept)")
        if self.kappa is not None and not self.kappa > 0:
            raise ValueError(f"kappa={self.kappa}: must be above 0 (how steeply the shares fall)")

    def fitted(self, model: ModelFacts) -> Method:
        """The rates, of the schedule or of the sigmoid."""
        if self.schedule is not None:
            return load_rates(self.schedule, self.name, model)
        if self.budget is None or self.kappa is None:
            raise ValueError(
                "psigmoid needs budget and kappa, as in psigmoid:budget=0.33,kappa=0.5, or a schedule for the model: "
                "make one with `vistrim calibrate psigmoid --out FILE` and give psigmoid:schedule=FILE"
            )
        return KeepRates(sigmoid_rates(self.kappa, self.budget, model.decoder.layers))
