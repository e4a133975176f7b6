"""VisionZip: keep the patches with the most class-token attention, and merge the others into a few tokens."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vistrim.core.contextual import gather_up
from vistrim.core.layout import Grid
from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import budget, check_keep
from vistrim.methods.base.checks import check_positions
from vistrim.methods.base.method import Method, Positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage
from vistrim.methods.base.registry import register
from vistrim.methods.base.units import Over, check_over


@register
@dataclass(frozen=True)
class VisionZip(PerImage):
    r"""Keep the dominant tokens of each image, and merge all others into a few contextual tokens.

    *Dominant tokens* are the class token itself, projected like a patch, and the ``dominant - 1`` patches that it
    attends to most in the block of the vision tower whose output becomes the visual tokens.

    *Contextual tokens* are made from the R other patches. In raster order, every ``R // contextual``-th of them is a
    target. Each of the rest joins the target with the highest cosine of keys (of the same block, mean over heads). A
    contextual token is :math:`h_t + \frac1{|M|} \sum_{m \in M} h_m` of the target t and its members M, before the
    projector. A target without members stays unchanged.

    The decoder gets the class token, the dominant patches in raster order, and then the contextual tokens.

    Parameters
    ----------
    dominant : int or float
        Dominant tokens per image, including the class token: a whole number of at least 2, or a share in (0, 1] of the
        tokens of the image.
    contextual : int or float
        Contextual tokens per image: a whole number of at least 0, or a share in (0, 1], which is at least one token.
        The authors use 54 and 10. Common values for 128 and 192 tokens are 108 and 20, and 162 and 30.
    over : {"tile", "image", "prompt"}
        Scope of one selection: a tile of an image or frame of a video, as in the authors' code, with these numbers of
        tokens for each; an image or video with all its tiles or frames; or the whole prompt. Tiles that the processor
        passes like images, as those of InternVL, are images.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive in the authors' order, or unchanged. If unchanged, a
        contextual token has the position of its target, and the class token that of the first removed patch.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2412.04467 (CVPR 2025) and github.com/dvlab-research/VisionZip at 3151f6d, the variant without
    training. As in the code, a contextual token is the sum of target and mean, so its norm is about twice that of other
    tokens. Scores and keys are in float32.

    In a tower without a class token, patches are ranked by the mean attention that they receive
    (`vistrim.methods.base.class_attention.ClassAttention`), and all dominant tokens are patches. If each visual token
    is made from several tokens of the tower, embeddings are merged after the projector, as in ports to Qwen2.5-VL. An
    image with too few tokens for the requested numbers stays unchanged. In tiled images, the class token and the
    contextual tokens of a tile stay with that tile, whereas the code puts those of all tiles after the image. Both
    leave separators out.
    """

    name = "visionzip"
    summary = "Keeps the patches that the class token attends to, and gathers up the others in a few tokens"
    needs = "attention and keys of a block of the vision tower, its class token and the projector (where there are)"
    source = "arXiv 2412.04467"
    reads_vision = True
    reads_class_token = True

    budget_parameter = "dominant"

    dominant: int | float = 54
    contextual: int | float = 10
    over: Over = "tile"
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        check_keep("dominant", self.dominant)
        check_keep("contextual", self.contextual, least=0)
        check_over(self.over)
        check_positions(self.positions)

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Return the block whose output becomes the visual tokens."""
        return (feature_block,)

    def vision_keys(self, feature_block: int) -> tuple[int, ...]:
        """Return the same block."""
        return (feature_block,)

    def count(self, n: int, grid: Grid | None, images: int) -> int:
        """Return the number of dominant and contextual tokens."""
        numbers = (self.dominant, self.contextual)
        return min(n, sum(budget(k if isinstance(k, float) else k * images, n) for k in numbers if k))

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Keep a share of all tokens, with the same ratio of dominant to contextual tokens.

        Raises
        ------
        ValueError
            If one of ``dominant`` and ``contextual`` is a share and the other a number.
        """
        if self.contextual and isinstance(self.dominant, float) != isinstance(self.contextual, float):
            raise ValueError("visionzip has no ratio of a share to a number: write dominant and contextual alike")
        total = self.dominant + self.contextual
        contextual = share * self.contextual / total if self.contextual else 0
        return replace(self, dominant=share * self.dominant / total, contextual=contextual)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep the dominant tokens, and compute the contextual tokens."""
        assert image.features is not None
        assert image.embeddings is not None
        n, contextual = image.n, image.budget(self.contextual) if self.contextual else 0
        with_class = image.class_state is not None and image.project is not None
        patches = image.budget(self.dominant) - with_class
        if patches + contextual + with_class >= n:
            return ImageChoice(torch.arange(n))
        (scores,), (keys,) = image.attention.values(), image.keys.values()
        states = image.features if image.project is not None else image.embeddings
        found = gather_up(scores, keys, states, patches, contextual)
        made = found.features.to(states)
        keep = torch.cat([found.dominant, found.targets])
        if with_class:
            assert image.class_state is not None
            place = _first_gone(keep, n)
            keep, made = torch.cat([keep, place]), torch.cat([made, image.class_state[None].to(made)])
        if image.project is not None:
            made = image.project(made)
        behind = self._behind(found.dominant, found.targets, keep[len(keep) - with_class :], n)
        return ImageChoice(keep, made=made if len(made) else None, behind=behind)

    def _behind(self, dominant: Tensor, targets: Tensor, place: Tensor, n: int) -> Tensor | None:
        """Return the moves to the authors' order: class token, dominant patches, contextual tokens."""
        if not self.renumbers:
            return None
        behind = torch.full((n,), -1, device=dominant.device).index_fill(0, targets, n - 1)
        return behind.scatter(0, dominant, torch.where(dominant < place, place, -1)) if len(place) else behind


def _first_gone(keep: Tensor, n: int) -> Tensor:
    """Return the first of n tokens that is not kept, ``[1]`` long."""
    return torch.zeros(n, dtype=torch.uint8, device=keep.device).index_fill(0, keep, 1).argmin(0, keepdim=True)
