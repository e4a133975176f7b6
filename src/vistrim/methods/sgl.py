"""SGL: a small model of the family answers first, and its attention ranks the large one's visual tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import share_of
from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.method import Guidance, Method
from vistrim.methods.base.named_model import ModelLoader
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import InputTokens, LayerTokens

CONSISTENCY_SHARE = 0.05
"""Share of the visual tokens with which the guide reads its answer again."""


@register
@dataclass(frozen=True)
class SGL(Method):
    r"""Let a smaller model answer first: keep the visual tokens that it looked at, or take its answer where it is sure.

    *Guidance.* The guide answers the prompt greedily. A visual token :math:`v` scores

    .. math:: A_v = \sum_l \sum_h \Big( \sum_{q} A^{l,h}[q, v] + \sum_{i} A^{l,h}[g_i, v] \Big)

    over all layers and heads of the guide, the rows :math:`q` of the text behind the sample's last visual token (where
    there is none, of its last prompt token) and the rows of the generated tokens :math:`g_i`; a plain sum. The last
    generated token is never read, and so has no row.

    *Pruning.* With :math:`L` layers, ``K = floor(L * layer_fraction)`` of them see all visual tokens; from layer
    :math:`K` on there are only the ``floor(N * keep_ratio)`` of the sample's ``N`` with the highest score (ties: the
    earlier one), at their own positions. ``K = 0`` prunes before the decoder. A sample of few tokens may keep none.

    *Early exit.* With a threshold :math:`\tau`, the guide reads prompt and answer once more, with the best 5 % of its
    visual tokens alone (at least one, chosen before its layer 0). Samples with

    .. math:: S = \tfrac12 \Big( \big(\prod_i p_i\big)^{1/N_G} + \prod_i p'_i \Big) > \tau

    get the guide's answer, and the model is asked about the others only. :math:`p_i` is the probability that the guide
    gave to the :math:`i`-th of the :math:`N_G` tokens of its answer (its end included), :math:`p'_i` that on rereading.

    Parameters
    ----------
    guide : PreTrainedModel or ModelLoader
        A smaller model with the same visual tokens and vocabulary, or what loads one for the model's device and number
        type: in the notation it is named, as `vistrim.load` takes it.
    layer_fraction : float
        Share of the layers that see all visual tokens, in [0, 1].
    keep_ratio : float
        Share of the visual tokens that the others see, in [0, 1].
    exit_threshold : float, optional
        :math:`\tau`, from 0 (the guide answers everything) to 1 (nothing). None: the model answers everything, and
        no exit score is computed.

    Raises
    ------
    ValueError
        If a parameter is out of range, or there is no guide.

    Notes
    -----
    Source: arXiv 2412.03324 (CVPR 2025) and github.com/NUS-HPC-AI-Lab/SGL at 7e76fd2. The paper's settings for
    ``layer_fraction`` and ``keep_ratio`` are 0.4 and 0.4, 0.2 and 0.2, 0.05 and 0.05, which leave 64, 35 and 9 % of the
    tokens on average over 48 layers.

    Deviations. The code's rows of the prompt begin at the last visual token, here behind it, as in the paper. Its sums
    are bfloat16 on eager attention; here they are float32, and the guide keeps its fast attention. It handles
    one image span in a batch of one; here a batch equals its samples. Its large model always runs, and both scores are
    only noted; here the exit happens. :math:`p_i` is taken from the logits as the guide gives them, which settings such
    as a repetition penalty do not change.

    The guide obeys the call's settings on the length and end of an answer and on the tokens in it, but neither sampling
    nor ``stop_strings``, nor ``logits_processor`` and other code of the caller's. Its answer ends at its own
    end-of-sequence tokens too, unless the call names some; and its generation config counts for what the call leaves
    open, such as a repetition penalty.

    It is a method of both the input and the prefill stage, of which it acts in one, so that it composes with methods
    that act while decoding.

    Examples
    --------
    >>> guide, _ = vistrim.load("reference-small")
    >>> with vistrim.trim(model, vistrim.SGL(guide, keep_ratio=0.2, exit_threshold=0.9)) as run:
    ...     output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    >>> run.report.exited
    """

    name = "sgl"
    summary = "Keeps what a smaller model looked at while answering, and takes its answer where it is sure"
    stages = ("input", "prefill")
    needs = "a smaller model with the same visual tokens (the guide)"
    kv_cache = "full below the cut, small from it on; the guide's own beside it until it has answered"
    source = "arXiv 2412.03324"
    ranks_by = "guide"

    guide: nn.Module | ModelLoader | None = None
    layer_fraction: float = 0.4
    keep_ratio: float = 0.4
    exit_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.guide is not None and not callable(self.guide):
            raise ValueError(
                f"guide={self.guide!r}: must be a model; load one by its name with vistrim.load(name) first"
            )
        for name in ("layer_fraction", "keep_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be between 0 and 1")
        if self.exit_threshold is not None and not self.exit_threshold >= 0:
            raise ValueError(f"exit_threshold={self.exit_threshold}: must be at least 0, or None for no early exit")

    @property
    def guidance(self) -> Guidance:
        """The loaded guide."""
        assert isinstance(self.guide, nn.Module)
        return Guidance(self.guide, self.exit_threshold, CONSISTENCY_SHARE)

    def fitted(self, model: ModelFacts) -> Method:
        """The method with its guide loaded.

        Raises
        ------
        ValueError
            If there is no guide, or every layer would see all tokens.
        LoadError
            If the guide cannot be loaded.
        """
        if self.guide is None:
            raise ValueError("sgl needs a guide: name a smaller model of the family, as in sgl:guide=reference-small")
        depth = model.decoder.layers
        if self._layer(depth) >= depth:
            raise ValueError(
                f"layer_fraction={self.layer_fraction}: with all {depth} decoder layers before the cut nothing would "
                "be trimmed: choose a smaller layer_fraction"
            )
        if isinstance(self.guide, nn.Module):
            return self
        return replace(self, guide=self.guide(model.device, model.dtype))

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Keep the best tokens, if no layer is to see them all."""
        if self._layer(tokens.depth) > 0:
            return None
        assert tokens.guidance is not None
        return self._best(tokens.guidance, tokens.visual, list(map(sum, tokens.images)))

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """The one cut, unless it is before the decoder."""
        layer = self._layer(depth)
        return (layer,) if layer > 0 else ()

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep the best tokens."""
        return self._best(tokens.scores, tokens.visual, tokens.initial)

    def _layer(self, depth: int) -> int:
        return share_of(self.layer_fraction, depth)

    def _best(self, scores: Tensor, visual: Tensor, numbers: Sequence[int]) -> Selection:
        return keep_top(scores, visual, [share_of(self.keep_ratio, n) for n in numbers])
