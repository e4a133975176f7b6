"""VTC-CLS: keep the patches that the class token attends to most, over several blocks of the vision tower."""

from dataclasses import dataclass

from vistrim.methods.base.class_attention import ClassAttention
from vistrim.methods.base.method import Positions
from vistrim.methods.base.registry import register


@register
@dataclass(frozen=True)
class VTCCLS(ClassAttention):
    r"""Keep the patches of each image with the most class-token attention, summed over the last blocks of the tower.

    .. math:: s_p = \sum_{l = l_0}^{F} \frac1H \sum_h A^{(l)}_h[\text{CLS}, p]

    with :math:`F` the block whose output becomes the visual tokens (22 of 0 to 23 in LLaVA-1.5). With
    ``first_layer`` :math:`= F` this is `FasterVLM`.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number, or a share in (0, 1]. The authors use 256, 128 and 64 of 576.
    first_layer : int
        First block :math:`l_0` (0-based) of the sum. 16 is the default of the authors' code. The values for the tables
        of the paper are not published.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive, as in the authors' code, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2412.05819 and github.com/THU-MIG/VTC-CLS at e41ac9b. The code supports one image of 576 tokens and
    would average over several tiles. Here every image or tile is ranked separately.
    """

    name = "vtc-cls"
    summary = "Keeps the patches that the class token attends to most, over several blocks of the vision tower"
    source = "arXiv 2412.05819"

    keep: int | float = 128
    first_layer: int = 16
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.first_layer) is not int or self.first_layer < 0:
            raise ValueError(
                f"first_layer={self.first_layer}: must be a whole number, at least 0 (the first block of the tower)"
            )

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Return the blocks from ``first_layer`` to the one whose output becomes the visual tokens."""
        if 0 <= feature_block < self.first_layer:
            raise ValueError(
                f"first_layer={self.first_layer}, but the visual tokens come from block {feature_block} of the vision "
                f"tower: choose first_layer between 0 and {feature_block}"
            )
        return (*range(self.first_layer, feature_block), feature_block)
