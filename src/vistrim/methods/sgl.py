"""SGL: a small guide model answers first, and its attention ranks the visual tokens of the large model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import check_keep, share_of
from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.guidance import Guidance
from vistrim.methods.base.method import Method
from vistrim.methods.base.named_model import ModelLoader
from vistrim.methods.base.registry import register
from vistrim.methods.base.sample_sizes import SampleSizes
from vistrim.methods.base.stage_inputs import InputTokens, LayerTokens

CONSISTENCY_SHARE = 0.05
"""Share of visual tokens kept when the guide model reads its answer again."""


@register
@dataclass(frozen=True)
class SGL(Method):
    r"""Rank visual tokens by the attention of a guide model, and return its answer where it is confident.

    *Guidance.* The guide model answers the prompt greedily. The score of a visual token :math:`v` is

    .. math:: A_v = \sum_l \sum_h \Big( \sum_{q} A^{l,h}[q, v] + \sum_{i} A^{l,h}[g_i, v] \Big)

    summed over all layers and heads of the guide, over the rows :math:`q` of the text after the sample's last visual
    token (or its last prompt token, if there is no such text), and over the rows of the generated tokens :math:`g_i`.
    The last generated token is never an input, so it has no row.

    *Pruning.* Of :math:`L` layers, the first ``K = floor(L * layer_fraction)`` see all visual tokens. From layer
    :math:`K` on, only the ``floor(N * keep)`` of the sample's ``N`` visual tokens with the highest scores stay,
    at their original positions (ties: the earlier token). ``K = 0`` prunes before the decoder. A sample with few tokens
    may keep none.

    *Early exit.* With a threshold :math:`\tau`, the guide reads the prompt and its answer once more, with only the best
    5 % of its visual tokens (at least one, chosen before its layer 0). Samples with

    .. math:: S = \tfrac12 \Big( \big(\prod_i p_i\big)^{1/N_G} + \prod_i p'_i \Big) > \tau

    get the guide's answer, and the large model answers only the others. :math:`p_i` is the probability of the
    :math:`i`-th of the :math:`N_G` tokens of the guide's answer (including its end), :math:`p'_i` that in the second
    pass.

    Parameters
    ----------
    guide : PreTrainedModel or ModelLoader
        A smaller model with the same visual tokens and vocabulary, or a loader of one for the model's device and dtype.
        In the notation it is a name that `vistrim.load` accepts.
    layer_fraction : float
        Share of the layers that see all visual tokens, in [0, 1].
    keep : int or float
        Visual tokens that the other layers see: a share of the sample's in (0, 1], or a whole number per image, from 2
        on.
    exit_threshold : float, optional
        :math:`\tau`, from 0 (the guide answers all samples) to 1 (none). None: the large model answers all samples, and
        no exit score is computed.

    Raises
    ------
    ValueError
        If a parameter is out of range, or there is no guide model.

    Notes
    -----
    Source: arXiv 2412.03324 (CVPR 2025) and github.com/NUS-HPC-AI-Lab/SGL at 7e76fd2. The paper's settings for
    ``layer_fraction`` and ``keep`` are 0.4 and 0.4, 0.2 and 0.2, 0.05 and 0.05. They keep 64, 35 and 9 % of the
    tokens on average over 48 layers.

    Deviations. The prompt rows in the code start at the last visual token, here after it, as in the paper. The code
    sums in bfloat16 with eager attention. Here sums are float32, and the guide keeps its attention kernel. The code
    supports one image in a batch of one. Here a batch gives the same result as its samples. In the code the large model
    always runs, and both scores are only recorded. Here the exit happens. :math:`p_i` is computed from the unprocessed
    logits of the guide, before a repetition penalty and similar settings.

    The guide follows the settings of the call for the length, the end and the allowed tokens of an answer. It ignores
    sampling, ``stop_strings``, ``logits_processor`` and other code of the caller. Its answer also ends at its own
    end-of-sequence tokens, unless the call sets them. Its generation config applies to settings that the call does not
    set, such as a repetition penalty.

    The method belongs to both the input and the prefill stage but acts in only one of them, so that it can be composed
    with methods that act while decoding.

    Examples
    --------
    >>> guide, _ = vistrim.load("reference-small")
    >>> with vistrim.trim(model, vistrim.SGL(guide, keep=0.2, exit_threshold=0.9)) as run:
    ...     output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    >>> run.report.exited
    """

    name = "sgl"
    summary = "Ranks visual tokens by the attention of a guide model, and returns its answer where it is confident"
    stages = ("input", "prefill")
    needs = "a smaller model with the same visual tokens (the guide model)"
    kv_cache = "full below the cut, small from it on; plus the guide's cache until it has answered"
    source = "arXiv 2412.03324"
    ranks_by = "guide"
    budget_parameter = "keep"

    guide: nn.Module | ModelLoader | None = None
    layer_fraction: float = 0.4
    keep: int | float = 0.4
    exit_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.guide is not None and not callable(self.guide):
            raise ValueError(f"guide={self.guide!r}: must be a model: load one by its name with vistrim.load(name)")
        if not 0 <= self.layer_fraction <= 1:
            raise ValueError(f"layer_fraction={self.layer_fraction}: must be between 0 and 1")
        check_keep("keep", self.keep)
        if self.exit_threshold is not None and not self.exit_threshold >= 0:
            raise ValueError(f"exit_threshold={self.exit_threshold}: must be at least 0, or None for no early exit")

    @property
    def guidance(self) -> Guidance:
        """The loaded guide model."""
        assert isinstance(self.guide, nn.Module)
        return Guidance(self.guide, self.exit_threshold, CONSISTENCY_SHARE)

    def fitted(self, model: ModelFacts) -> Method:
        """Load the guide model.

        Raises
        ------
        ValueError
            If there is no guide model, or every layer would see all tokens.
        LoadError
            If the guide model cannot be loaded.
        """
        if self.guide is None:
            raise ValueError(
                "sgl needs a guide model: name a smaller one of the family, as in sgl:guide=reference-small"
            )
        depth = model.decoder.layers
        if self._layer(depth) >= depth:
            raise ValueError(
                f"layer_fraction={self.layer_fraction}: with all {depth} decoder layers before the cut, nothing would "
                "be trimmed: choose a smaller layer_fraction"
            )
        if isinstance(self.guide, nn.Module):
            return self
        return replace(self, guide=self.guide(model.device, model.dtype))

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Keep the best tokens if the cut is before the decoder."""
        if self._layer(tokens.depth) > 0:
            return None
        assert tokens.guidance is not None
        return self._best(tokens.guidance, tokens.visual, list(map(sum, tokens.images)), list(map(len, tokens.images)))

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Return the layer of the cut, unless it is before the decoder."""
        layer = self._layer(depth)
        return (layer,) if layer > 0 else ()

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep the best tokens."""
        return self._best(tokens.scores, tokens.visual, tokens.initial, tokens.images)

    def input_count(self, sample: SampleSizes) -> int:
        """Return ``keep`` if the cut is before the decoder."""
        return sample.visual if self.layer_fraction else self._count(sample.visual, len(sample.images))

    @property
    def counts_images(self) -> bool:  # type: ignore[override]
        """Whether ``keep`` is a number of tokens per image."""
        return isinstance(self.keep, int)

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Return the share or number of tokens that stays."""
        return self._count(initial, images)

    def _count(self, n: int, images: int) -> int:
        return share_of(self.keep, n) if isinstance(self.keep, float) else min(n, self.keep * images)

    def _layer(self, depth: int) -> int:
        return share_of(self.layer_fraction, depth)

    def _best(self, scores: Tensor, visual: Tensor, numbers: Sequence[int], images: Sequence[int]) -> Selection:
        counts = [self._count(n, pictures) for n, pictures in zip(numbers, images, strict=True)]
        return keep_top(scores, visual, counts)
