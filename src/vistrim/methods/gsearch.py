"""G-Search: the smallest share of visual tokens in each layer that preserves the answers."""

from dataclasses import dataclass

from vistrim.core.model_facts import ModelFacts
from vistrim.methods.base.keep_rates import KeepRates
from vistrim.methods.base.method import Method
from vistrim.methods.base.registry import register
from vistrim.methods.base.schedule_file import load_rates


@register
@dataclass(frozen=True)
class GSearch(Method):
    r"""Keep in each layer the share of visual tokens that a search on calibration questions found sufficient.

    Before layer :math:`l \ge 1`, the :math:`\lceil r_l N \rceil` visual tokens stay that receive the most attention
    from the last prompt token at layer :math:`l - 1` (mean over heads). They keep their positions. :math:`r_0 = 1`, and
    :math:`r_l` is non-increasing. The rates come from ``vistrim calibrate gsearch``. From the first layer to the last,
    it finds the smallest rate at which the model still reaches the required score, see
    `vistrim.calibration.gsearch.search_rates`.

    Parameters
    ----------
    schedule : str
        File that ``vistrim calibrate gsearch`` wrote for the model. It may also set the ranking rows to all text after
        the last image.

    Raises
    ------
    ValueError
        When the method is applied to a model, if there is no such file, or it is for another method or model.

    Notes
    -----
    Source: arXiv 2412.00556 (CVPR 2025). There is no official code. The ranking rows and the positions are not
    published. Both are choices of this project, as are most details of the search.
    """

    name = "gsearch"
    summary = "Keeps in each layer the smallest share of visual tokens that a search found sufficient"
    stages = ("prefill",)
    needs = "a schedule from vistrim calibrate; " + KeepRates.needs
    kv_cache = KeepRates.kv_cache
    source = "arXiv 2412.00556 (our reading)"

    schedule: str | None = None

    def fitted(self, model: ModelFacts) -> Method:
        """Load the rates of the schedule."""
        if self.schedule is None:
            raise ValueError(
                "gsearch needs a schedule for the model: make one with "
                "`vistrim calibrate gsearch --out FILE` and use gsearch:schedule=FILE"
            )
        return load_rates(self.schedule, self.name, model)
