"""Layout of the visual tokens of an image that is encoded as an overview and tiles, joined to a mosaic."""

import torch
from torch import Tensor

from vistrim.core.layout import ImageShape, Picture, View


def read_mosaic(shares: Tensor, tiles: int, side: int) -> ImageShape:
    """Find the tile of each token, and the grid of the joined tiles. The tokens of the overview come first.

    Parameters
    ----------
    shares : Tensor
        ``[tokens, tiles or more]``: share of each tile in a token, the overview first; NaN for newlines.
    tiles : int
        Number of tiles, including the overview.
    side : int
        Patches along each side of a tile.

    Returns
    -------
    ImageShape
        The layout.
    """
    newline = shares[:, 0].isnan()
    # A newline belongs to the token before it. Shares are rounded, so that a token half in two tiles goes to the first.
    token = torch.where(newline, 0, torch.arange(len(shares))).cummax(0).values
    tile = (shares.nan_to_num() * 1024).round().argmax(1)[token]
    row = newline.cumsum(0) - newline.long()
    pictures = []
    for number in range(tiles):
        of_rows = row[tile == number].unique(return_counts=True)[1].tolist()
        grid = (len(of_rows), of_rows[0]) if len(set(of_rows)) == 1 else None
        if number == 0:
            grid = (side, side) if of_rows == [side**2] else None
        pictures.append(Picture(sum(of_rows), grid, projected=side**2))
    views = [View((side, side), 0, side)]
    if tiles > 1:
        rows = int(newline.sum())
        stride = (len(shares) - side**2) // rows
        views.append(View((rows, stride - 1), side**2, stride))
    return ImageShape(tuple(pictures), tile if tiles > 1 else None, tuple(views))
