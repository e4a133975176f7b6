"""G-Search: for each layer the smallest share of the visual tokens that loses nothing."""

from dataclasses import dataclass

from vistrim.core.model_facts import ModelFacts
from vistrim.methods.base.keep_rates import KeepRates
from vistrim.methods.base.method import Method
from vistrim.methods.base.registry import register
from vistrim.methods.base.schedule_file import load_rates


@register
@dataclass(frozen=True)
class GSearch(Method):
    r"""Keep in each layer the share of the visual tokens that a search on calibration questions found sufficient.

    Before layer :math:`l \ge 1` the :math:`\lceil r_l N \rceil` visual tokens stay that receive most attention at layer
    :math:`l - 1`, from the last prompt token (mean over heads), with their original positions; :math:`r_0 = 1`, and
    :math:`r_l` never rises. The rates come from ``vistrim calibrate gsearch``: layer by layer, from the first to the
    last, the smallest rate with which the model still answers as well as it has to; see
    `vistrim.calibration.gsearch.search_rates`.

    Parameters
    ----------
    schedule : str
        The file that ``vistrim calibrate gsearch`` wrote for the model. It may also say that all text behind the last
        image ranks.

    Raises
    ------
    ValueError
        When the model is to be trimmed, if there is no such file, or it is another method's or another model's.

    Notes
    -----
    Source: arXiv 2412.00556 (CVPR 2025). There is no official code. Which tokens' attention ranks and how positions are
    given is not known: both are this project's choice, as is nearly all of the search.
    """

    name = "gsearch"
    summary = "Keeps in each layer the smallest share of the visual tokens that a search found sufficient"
    stages = ("prefill",)
    needs = "a schedule from vistrim calibrate; " + KeepRates.needs
    kv_cache = KeepRates.kv_cache
    source = "arXiv 2412.00556 (our reading)"

    schedule: str | None = None

    def fitted(self, model: ModelFacts) -> Method:
        """The rates of the schedule."""
        if self.schedule is None:
            raise ValueError(
                "gsearch needs a schedule for the model: make one with "
                "`vistrim calibrate gsearch --out FILE` and give gsearch:schedule=FILE"
            )
        return load_rates(self.schedule, self.name, model)
