"""FasterVLM: keep the patches that the class token of the vision tower attends to most."""

from dataclasses import dataclass

from vistrim.methods.base.class_attention import ClassAttention
from vistrim.methods.base.method import Positions
from vistrim.methods.base.registry import register


@register
@dataclass(frozen=True)
class FasterVLM(ClassAttention):
    r"""Keep the patches of each image that receive the most attention from the class token, before the decoder.

    The score of patch :math:`p` is :math:`s_p = \frac1H \sum_h A_h[\text{CLS}, p]` in the block of the vision tower
    whose output becomes the visual tokens. The best ``keep`` patches stay, in raster order. The text is not used.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number, or a share in (0, 1]. The authors use 432, 288, 144, 58 and 29 of 576.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive, as in the authors' code, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2412.01818 (version 1) and github.com/Theia-4869/FasterVLM at f5d5f12. The code drops tokens after the
    projector. For a projector that works on each token separately, the order makes no difference. For towers without a
    class token see `vistrim.methods.base.class_attention.ClassAttention`.
    """

    name = "fastervlm"
    summary = "Keeps the patches that the class token of the vision tower attends to most"
    source = "arXiv 2412.01818v1"

    keep: int | float = 144
    positions: Positions = "renumber"

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Return the block whose output becomes the visual tokens."""
        return (feature_block,)
