"""FasterVLM: keep the patches that the vision tower's class token attends to."""

from dataclasses import dataclass

from vistrim.methods.base.class_attention import ClassAttention
from vistrim.methods.base.method import Positions
from vistrim.methods.base.registry import register


@register
@dataclass(frozen=True)
class FasterVLM(ClassAttention):
    r"""Keep the patches of each image that receive most attention from the class token, before the decoder.

    The score of patch :math:`p` is :math:`s_p = \frac1H \sum_h A_h[\text{CLS}, p]` in the block of the vision tower
    whose output becomes the visual tokens; the best ``keep`` stay, in raster order. The text has no say.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number, or a share in (0, 1]. The authors use 432, 288, 144, 58 and 29 of 576.
    positions : {"renumber", "original"}
        RoPE positions of the tokens that are left: consecutive as the authors have them, or each its own.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2412.01818 (version 1) and github.com/Theia-4869/FasterVLM at f5d5f12. The code projects all tokens
    and then drops; dropping is the same before or after a projector that works token by token. For a tower without a
    class token see `vistrim.methods.base.class_attention.ClassAttention`.
    """

    name = "fastervlm"
    summary = "Keeps the patches that the vision tower's class token attends to most"
    source = "arXiv 2412.01818v1"

    keep: int | float = 144
    positions: Positions = "renumber"

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """The block that makes the visual tokens."""
        return (feature_block,)
