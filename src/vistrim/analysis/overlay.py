"""Pictures of the visual tokens that each stage kept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont, ImageStat
from torch import Tensor

from vistrim.core.layout import Grid
from vistrim.engine.report.trace import TokenGroup, Trace

PANEL = 288
"""Pixels that the longer side of a panel is brought near to; every patch gets a whole number of them."""
MAX_COLUMNS = 5
GAP = 14
TITLE_SIZE = 17
BACKGROUND = "white"
INK = (40, 40, 40)
FRAME = (170, 170, 170)
OUTLINE = (255, 138, 0)
DARK_FOG, BRIGHT_FOG, FOG = (50, 52, 58), (215, 217, 222), 0.75
GRID_OPACITY = 45


def image_as_seen(pixels: Tensor, image_processor: Any) -> Image.Image:
    """Undo the image processor's normalisation: the picture that the vision tower was given.

    Parameters
    ----------
    pixels : Tensor
        ``[3, height, width]``: one row of ``pixel_values``.
    image_processor
        The image processor that made it; its mean, standard deviation and rescale factor are used.

    Returns
    -------
    PIL.Image.Image
        RGB, ``width`` x ``height`` pixels: resized and cropped as the model saw it.

    Raises
    ------
    ValueError
        If ``pixels`` has another shape.
    """
    if pixels.dim() != 3 or pixels.shape[0] != 3:
        raise ValueError(f"pixels of shape {tuple(pixels.shape)} are no image: give [3, height, width]")
    values = pixels.detach().to("cpu", torch.float32)
    if getattr(image_processor, "do_normalize", False):
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (image_processor.image_mean, image_processor.image_std))
        values = values * std + mean
    if getattr(image_processor, "do_rescale", False):
        values = values / image_processor.rescale_factor
    return Image.fromarray(values.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def draw_overlay(
    image: Image.Image, grid: Grid, stages: Sequence[tuple[str, Sequence[int]]], title: str = "original"
) -> Image.Image:
    """Draw an image next to what each stage kept of it: kept patches as they are, the others grey and dark.

    Parameters
    ----------
    image : PIL.Image.Image
        The image as the model saw it.
    grid : tuple of int
        Rows and columns of its visual tokens.
    stages : sequence of (str, sequence of int)
        Title and kept tokens of each panel; tokens count in raster order.
    title : str
        Title of the first panel, the image itself.

    Returns
    -------
    PIL.Image.Image
        RGB; panels from left to right, in several rows when there are many.

    Raises
    ------
    ValueError
        If a token lies outside of the grid.
    """
    rows, columns = grid
    cell = max(2, round(PANEL / max(rows, columns)))
    size = (columns * cell, rows * cell)
    enlarges_pixels = size[0] >= 4 * image.width
    shown = image.convert("RGB").resize(size, Image.Resampling.NEAREST if enlarges_pixels else Image.Resampling.LANCZOS)
    dropped = _fogged(shown)
    panels = [(title, shown)]
    for stage_title, kept in stages:
        mask = _kept_mask(grid, kept)
        panel = Image.composite(shown, dropped, mask.resize(size, Image.Resampling.NEAREST))
        _draw_grid(panel, mask, cell)
        panels.append((stage_title, panel))
    return _arrange(panels, size)


@dataclass(frozen=True)
class Region:
    """A grid of visual tokens, and what it shows.

    Attributes
    ----------
    name : str
        Which image, or which part of one.
    image : PIL.Image.Image
        What the tokens lie over.
    grid : tuple of int
        Rows and columns.
    tokens : sequence of int or None
        The sample's visual token in each cell, in raster order; None where it is one that cannot be removed.
    """

    name: str
    image: Image.Image
    grid: Grid
    tokens: Sequence[int | None]


def draw_regions(trace: Trace, regions: Sequence[Region], sample: int = 0) -> Image.Image:
    """Draw what each prefill stage of a generation kept, one region under the other.

    Parameters
    ----------
    trace : Trace
        Trace of the generation: ``report.trace`` of `vistrim.trim` with ``trace=True``.
    regions : sequence of Region
        Grids of the sample's visual tokens.
    sample : int
        Sample of the batch.

    Returns
    -------
    PIL.Image.Image
        RGB. A stage that dropped nothing of a region gets no panel.
    """
    drawn = []
    for region in regions:
        place = {token: cell for cell, token in enumerate(region.tokens) if token is not None}
        n = len(region.tokens)
        always = set(range(n)) - set(place.values())
        left = list(range(n))
        stages = []
        for stage in trace.samples[sample].prefill:
            kept = sorted(always.union(place[token] for token in stage.kept if token in place))
            if kept != left:
                where = f"from layer {stage.layer}" if stage.layer else "before layer 0"
                stages.append((f"{where}: {len(kept)} of {n}", kept))
                left = kept
        drawn.append(draw_overlay(region.image, region.grid, stages, f"{region.name}: {n} tokens"))
    return _stack(drawn)


def draw_trace(trace: Trace, images: Sequence[Image.Image], sample: int = 0) -> Image.Image:
    """Draw what each prefill stage of a generation kept of a sample's images, one image under the other.

    Parameters
    ----------
    trace : Trace
        Trace of the generation.
    images : sequence of PIL.Image.Image
        The sample's images as the model saw them, in prompt order.
    sample : int
        Sample of the batch.

    Returns
    -------
    PIL.Image.Image
        RGB. A stage that dropped nothing of an image gets no panel.

    Raises
    ------
    ValueError
        If the sample's visual tokens are not one grid per image; `vistrim.analysis.regions_of` knows of tiles.
    """
    return draw_regions(trace, whole_images(trace, images, sample), sample)


def whole_images(trace: Trace, images: Sequence[Image.Image], sample: int = 0) -> list[Region]:
    """The regions of images with one grid each; see `draw_trace`."""
    groups = trace.samples[sample].groups
    if len(images) != len(groups) or any(group.grid is None for group in groups):
        tokens = trace.samples[sample].visual_tokens
        raise ValueError(f"{tokens} visual tokens do not form one grid for each of {len(images)} images")
    return [
        region_of(image_name(number, len(images)), image, group)
        for number, (image, group) in enumerate(zip(images, groups, strict=True))
    ]


def region_of(name: str, image: Image.Image, group: TokenGroup) -> Region:
    """The region of a group of tokens that has a grid, over what it shows."""
    assert group.grid is not None
    at = dict(zip(group.cells, group.tokens, strict=True))
    return Region(name, image, group.grid, [at.get(cell) for cell in range(group.grid[0] * group.grid[1])])


def image_name(number: int, of: int) -> str:
    """Which of several images, counted from 1; "image" if there is one."""
    return f"image {number + 1}" if of > 1 else "image"


def _fogged(image: Image.Image) -> Image.Image:
    """Grey, and nearly one tone: a dark one over bright images and a bright one over dark images."""
    grey = image.convert("L")
    tone = DARK_FOG if ImageStat.Stat(grey).mean[0] > 100 else BRIGHT_FOG
    return Image.blend(grey.convert("RGB"), Image.new("RGB", image.size, tone), FOG)


def _kept_mask(grid: Grid, kept: Sequence[int]) -> Image.Image:
    rows, columns = grid
    mask = Image.new("L", (columns, rows), 0)
    for index in kept:
        if not 0 <= index < rows * columns:
            raise ValueError(f"token {index} lies outside of the {rows} x {columns} grid")
        mask.putpixel((index % columns, index // columns), 255)
    return mask


def _draw_grid(panel: Image.Image, mask: Image.Image, cell: int) -> None:
    """Draw thin lines between patches, and the outline of what was kept."""
    lines = Image.new("L", panel.size, 0)
    draw = ImageDraw.Draw(lines)
    for row in range(1, mask.height):
        draw.line((0, row * cell, panel.width, row * cell), fill=GRID_OPACITY)
    for column in range(1, mask.width):
        draw.line((column * cell, 0, column * cell, panel.height), fill=GRID_OPACITY)
    panel.paste(Image.new("RGB", panel.size, "black"), mask=lines)
    draw = ImageDraw.Draw(panel)
    for row in range(mask.height):
        for column in range(mask.width):
            x, y = column * cell, row * cell
            here = mask.getpixel((column, row))
            if column and here != mask.getpixel((column - 1, row)):
                draw.line((x, y, x, y + cell), fill=OUTLINE)
            if row and here != mask.getpixel((column, row - 1)):
                draw.line((x, y, x + cell, y), fill=OUTLINE)


def _arrange(panels: Sequence[tuple[str, Image.Image]], size: tuple[int, int]) -> Image.Image:
    rows = math.ceil(len(panels) / MAX_COLUMNS)
    columns = math.ceil(len(panels) / rows)
    font = ImageFont.load_default(TITLE_SIZE)
    heading = TITLE_SIZE + 8
    width = max(size[0], *(math.ceil(font.getlength(title)) for title, _ in panels)) + GAP
    height = size[1] + heading + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, (title, panel) in enumerate(panels):
        x, y = GAP + i % columns * width, GAP + i // columns * height
        draw.text((x, y), title, fill=INK, font=font)
        sheet.paste(panel, (x, y + heading))
        draw.rectangle((x - 1, y + heading - 1, x + panel.width, y + heading + panel.height), outline=FRAME)
    return sheet


def _stack(sheets: Sequence[Image.Image]) -> Image.Image:
    if len(sheets) == 1:
        return sheets[0]
    stacked = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), BACKGROUND)
    y = 0
    for sheet in sheets:
        stacked.paste(sheet, (0, y))
        y += sheet.height
    return stacked
