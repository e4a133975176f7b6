"""The attention heads of a model that attend to images, measured on prompts."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistrim.calibration.attention_ratios import attention_ratios
from vistrim.calibration.per_prompt import measure_each
from vistrim.engine import describe
from vistrim.methods.base.artifacts import save_part
from vistrim.methods.yopo import HEADS, YOPO

WHOLE_LAYERS = 2
"""Number of first layers in which all heads stay active."""
VOTES = 0.4
"""A head is active if more than this share of the prompts votes for it."""


@dataclass(frozen=True)
class HeadCalibration:
    """Heads that attend to images.

    Attributes
    ----------
    active : Tensor
        ``[layers, heads]`` bool.
    threshold : float
        A prompt votes for a head if the head's ratio exceeds it.
    ratios : Tensor
        ``[prompts, layers, heads]`` float32: attention of the question to visual tokens, divided by that to text.
    """

    active: Tensor
    threshold: float
    ratios: Tensor

    @property
    def share(self) -> float:
        """Share of active heads."""
        return self.active.float().mean().item()

    def save(self, path: Path, model: Any) -> None:
        """Write the file for the parameter ``heads`` of `vistrim.YOPO`, valid for the model that was measured."""
        notes = {"threshold": self.threshold, "prompts": len(self.ratios)}
        save_part(path, YOPO.name, describe(model).facts, {HEADS: self.active}, notes)


def calibrate_heads(
    model: Any, prompts: Iterable[Mapping[str, Any]], *, threshold: float | None = None, keep: float | None = None
) -> HeadCalibration:
    r"""Find the heads that attend to images.

    For each prompt, :math:`\rho_{l,h}` is the attention of the question to visual tokens in head :math:`h` of layer
    :math:`l`, divided by its attention to text. The prompt votes for the head if this ratio exceeds the threshold,
    which is the same for all heads. A head is active if more than 40 % of the prompts vote for it. In the first two
    layers, all heads are active.

    Parameters
    ----------
    model : PreTrainedModel
        A supported multimodal model, not being trimmed.
    prompts : iterable of mapping
        Processor outputs (``input_ids``, ``pixel_values``, ...), each with one or more prompts; the authors use 100
        prompts. Wrap it in ``rich.progress.track(...)`` to see progress.
    threshold : float, optional
        The authors use 0.035, 0.077 and 0.2 for LLaVA-1.5-13B.
    keep : float, optional
        Share of all heads to be active, in (0, 1]; the threshold is then chosen accordingly.

    Returns
    -------
    HeadCalibration
        Its ``save`` writes the file.

    Raises
    ------
    ValueError
        If not exactly one of ``threshold`` and ``keep`` is given, ``keep`` cannot be reached, there is no prompt, or
        one has no image or no text after it.
    TypeError
        If ``prompts`` is a single mapping.
    UnsupportedModelError
        If the model is not supported, or is being trimmed.

    Notes
    -----
    Source: YOPO, arXiv 2410.06169 and ``gen_mask_llava.py`` at f0783f4. The paper does not define the query tokens for
    LLaVA; here they are all text after the last image: the question and the end of the chat template. The authors' code
    sums attention maps; here only these rows are computed, in float32.
    """
    if (threshold is None) == (keep is None):
        raise ValueError("give either threshold or keep, the share of heads to keep")
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"threshold={threshold}: must be a finite number")
    if keep is not None:
        shape = describe(model).decoder_shape
        _heads_beyond(keep, shape.layers * shape.heads, WHOLE_LAYERS * shape.heads)
    ratios = measure_each(prompts, lambda inputs: attention_ratios(model, inputs))
    if keep is not None:
        threshold = threshold_for(ratios, keep)
    assert threshold is not None
    return HeadCalibration(vote(ratios, threshold), threshold, ratios)


def vote(ratios: Tensor, threshold: float) -> Tensor:
    """Active heads ``[layers, heads]`` by the ratios ``[prompts, layers, heads]``."""
    return _decisive(ratios) > threshold


def threshold_for(ratios: Tensor, keep: float) -> float:
    """The threshold at which the share ``keep`` of all heads is active.

    Raises
    ------
    ValueError
        If the share is out of range, or below the share of the heads of the first layers, which are all active.
    """
    decisive = _decisive(ratios)
    wanted = _heads_beyond(keep, decisive.numel(), decisive[:WHOLE_LAYERS].numel())
    ranked = decisive[WHOLE_LAYERS:].flatten().sort(descending=True).values
    # The best head that is inactive; no ratio is below zero.
    return ranked[wanted].item() if wanted < len(ranked) else -1.0


def _heads_beyond(keep: float, heads: int, always: int) -> int:
    """Heads to keep beyond those of the first layers, all of which are active."""
    wanted = int(heads * keep + 0.5) - always if 0 < keep <= 1 else -1
    if wanted < 0:
        raise ValueError(
            f"keep={keep}: must be between {always / heads:.2f} (the heads of the first {WHOLE_LAYERS} layers, which "
            "are always active) and 1"
        )
    return wanted


def _decisive(ratios: Tensor) -> Tensor:
    """``[layers, heads]``: the ratio that decides the vote on each head; infinite in the first layers."""
    needed = int(VOTES * len(ratios)) + 1
    decisive = ratios.sort(dim=0, descending=True).values[needed - 1].clone()
    decisive[:WHOLE_LAYERS] = torch.inf
    return decisive
