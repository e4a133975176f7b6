"""ST³ with a fitted schedule, and what it differs from ST³ in."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose

from torch import Tensor

from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import tokens_kept
from vistrim.core.scores import AttentionRows
from vistrim.core.selection import Selection
from vistrim.methods.base.attention_schedule import AttentionSchedule
from vistrim.methods.base.checks import check_layer
from vistrim.methods.base.cuts import Cuts
from vistrim.methods.base.method import DecodeRows
from vistrim.methods.base.stage_inputs import LayerTokens
from vistrim.methods.vta import VTA

LEAST_CUTS = 3
"""Cuts from which on a schedule is progressive, in our reading of ST³."""


@dataclass(frozen=True)
class FittedST3(AttentionSchedule):
    """The method that `vistrim.ST3` becomes with a schedule.

    Parameters
    ----------
    cuts : Cuts
        The cuts across layers, and what ranks in prefill.
    annealing : VTA
        The annealing over generated tokens.
    depth : int
        Number of decoder layers.
    origin : str
        Origin of the schedule.
    """

    name = "st3"
    summary = "ST³ with a fitted schedule"
    stages = ("prefill", "decode")
    kv_cache = "smaller after each cut, shrinks while decoding"
    source = "arXiv 2412.20105 (generalized)"

    cuts: Cuts
    annealing: VTA
    depth: int
    origin: str = ""

    @property
    def acts_in_decode(self) -> bool:
        """False for the constant decay."""
        return self.annealing.acts_in_decode

    @property
    def evicts_by(self) -> DecodeRows:  # type: ignore[override]
        """Ranking rows while decoding, as in `VTA`."""
        return self.annealing.decode_rows

    @property
    def averages_layers(self) -> bool:  # type: ignore[override]
        """Whether scores are averaged over layers, as in `Cuts`."""
        return self.cuts.averaged

    @property
    def remark(self) -> str:
        """The origin of the schedule, and in what it differs from ST³."""
        found = deviations(self.cuts, self.depth) + deviations_of_annealing(self.annealing)
        return f"{self.origin}; " + (f"differs from ST³: {', '.join(found)}" if found else "form of ST³")

    def fitted(self, model: ModelFacts) -> "FittedST3":
        """Check that the decoder has the layers of the cuts."""
        check_layer("layer of the last cut", self.cuts.layers[-1], model.decoder.layers)
        self.annealing.fitted(model)
        return self

    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """Return the number of visual tokens of a layer at a step, as in `vistrim.ST3`."""
        annealing = self.annealing
        return tokens_kept(n, self.cuts.retention(layer), annealing.factor(step), annealing.floor_of(layer))

    def is_due(self, step: int) -> bool:
        """Return True at every ``interval``-th step."""
        return self.annealing.is_due(step)

    def query_rows(self, embeddings: Tensor, visual: Tensor, prompt: Tensor) -> Tensor | None:
        """Choose the ranking rows, as in `Cuts`."""
        return self.cuts.query_rows(embeddings, visual, prompt)

    def score(self, attention: AttentionRows, visual: Tensor) -> Tensor:
        """Compute the scores, as in `Cuts`."""
        return self.cuts.score(attention, visual)

    def select_decode(self, layer: int, counts: Sequence[int], tokens: LayerTokens) -> Selection:
        """Choose the tokens that stay in a layer's cache, as in `VTA`."""
        return self.annealing.select_decode(layer, counts, tokens)


def deviations(cuts: Cuts, depth: int) -> list[str]:
    """List in what cuts differ from the formula of ST³.

    Parameters
    ----------
    cuts : Cuts
        The cuts.
    depth : int
        Number of decoder layers.

    Returns
    -------
    list of str
        Phrases; empty if there is a start layer, a stride and a share per cut that give the same cuts, ranked alike.
    """
    layers, shares = cuts.layers, cuts.shares
    stride = layers[1] - layers[0] if len(layers) > 1 else depth
    equal = all(isclose(share, shares[0] ** (i + 1), rel_tol=1e-9) for i, share in enumerate(shares))
    found = []
    if not (equal and layers == tuple(range(layers[0], depth, stride))):
        kept = "/".join(f"{100 * share:.3g}" for share in shares)
        found.append(f"chosen cuts before layers {'/'.join(map(str, layers))} to {kept} %")
    if len(layers) < LEAST_CUTS:
        found.append(f"fewer than {LEAST_CUTS} cuts")
    if cuts.rows == "prompt":
        found.append("ranked by all text after the image instead of the last prompt token")
    if cuts.averaged:
        found.append("ranked by the mean of the layers since the last cut instead of the layer before")
    if cuts.heads < 1:
        found.append(f"ranked by the {cuts.heads:.0%} of the heads that attend to the image most")
    return found


def deviations_of_annealing(annealing: VTA) -> list[str]:
    """List in what an annealing differs from the formula of ST³, as `deviations` does for cuts."""
    found: list[str] = []
    if not annealing.acts_in_decode:
        return found
    if annealing.decode_rows == "answer":
        found.append("annealed by the mean over the answer so far instead of the current token")
    if annealing.decode_rows == "prompt":
        found.append("annealed by all text after the image instead of the current token")
    if annealing.spread:
        found.append(f"{annealing.spread:.0%} of the tokens left by annealing evenly spaced")
    if isinstance(annealing.floor, tuple):
        found.append("floors of annealing per layer")
    return found
