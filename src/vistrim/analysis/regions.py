"""Positions of a prompt's visual tokens on its images, whole or cut into tiles."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from vistrim.analysis.overlay import Region, image_as_seen, image_name, region_of, whole_images
from vistrim.analysis.pixels import pixels_of
from vistrim.analysis.tiles import arrange, find_tiles
from vistrim.core.layout import Grid
from vistrim.engine.report.trace import Trace


def regions_of(processor: Any, inputs: Mapping[str, Any], images: Sequence[Image.Image], trace: Trace) -> list[Region]:
    """Find the grids of a prompt's visual tokens, and the image that each covers.

    Parameters
    ----------
    processor
        As `vistrim.load` returns it.
    inputs : mapping
        Processor output for the prompt, one sample.
    images : sequence of PIL.Image.Image
        The prompt's images as they were given to the processor.
    trace : Trace
        Trace of a generation from these inputs: ``report.trace`` of `vistrim.trim` with ``trace=True``.

    Returns
    -------
    list of Region
        For each image: the whole image, or its overview and the mosaic of its tiles. They are shown as the model saw
        them if the processor returns images, and otherwise as they were given.

    Raises
    ------
    ValueError
        If visual tokens form no grids, or their positions are not known.
    """
    groups = trace.samples[0].groups
    tiled = {group.image for group in groups if group.part == "tiles"}
    overviews = {group.image for group in groups if group.part == "overview"}
    if overviews == set(range(len(images))):
        return [
            region_of(_name(number, len(images), group.part if number in tiled else ""), image, group)
            for number, image in enumerate(images)
            for group in groups
            if group.image == number and group.part in ("overview", "tiles")
        ]
    seen = _as_seen(processor, inputs)
    if len(groups) == len(images):
        return whole_images(trace, seen if len(seen) == len(images) else images)
    return _tiled(processor, seen, images, trace)


def _as_seen(processor: Any, inputs: Mapping[str, Any]) -> list[Image.Image]:
    """The images that the vision tower received, without the padding to the largest one."""
    pixels, sizes = pixels_of(inputs), inputs.get("image_sizes")
    if pixels is None:
        return []
    found = list(pixels)
    if sizes is not None and len(sizes) == len(found):
        found = [image[:, :height, :width] for image, (height, width) in zip(found, sizes.tolist(), strict=True)]
    return [image_as_seen(image, processor.image_processor) for image in found]


def _tiled(processor: Any, seen: Sequence[Image.Image], images: Sequence[Image.Image], trace: Trace) -> list[Region]:
    parts = whole_images(trace, seen)
    tiles = find_tiles(processor, images)
    if len(tiles) != len(parts):
        raise ValueError(f"{len(parts)} images were encoded, but the prompt's images have {len(tiles)} tiles")
    of_image = defaultdict(list)
    for number, tile in enumerate(tiles):
        of_image[tile.image].append(number)
    regions = []
    for image, numbers in of_image.items():
        name = image_name(image, len(images))
        whole = [number for number in numbers if tiles[number].is_whole]
        cut = [number for number in numbers if not tiles[number].is_whole]
        rows = arrange([tiles[number] for number in cut]) if cut else None
        same = len({(parts[number].grid, parts[number].image.size) for number in cut}) == 1
        if len(whole) > 1 or (cut and (rows is None or not same)):
            regions += [
                _renamed(parts[number], f"{name}, tile {i} of {len(numbers)}") for i, number in enumerate(numbers, 1)
            ]
            continue
        regions += [_renamed(parts[number], _name(image, len(images), "overview" if cut else "")) for number in whole]
        if rows is not None:
            title = _name(image, len(images), f"{len(rows)} x {len(rows[0])} tiles")
            regions.append(_joined(title, [[parts[cut[place]] for place in row] for row in rows]))
    return regions


def _joined(name: str, rows: Sequence[Sequence[Region]]) -> Region:
    """Join regions of equal size into one."""
    high, wide = rows[0][0].grid
    width, height = rows[0][0].image.size
    image = Image.new("RGB", (width * len(rows[0]), height * len(rows)))
    grid: Grid = (high * len(rows), wide * len(rows[0]))
    tokens: list[int | None] = [None] * (grid[0] * grid[1])
    for r, row in enumerate(rows):
        for c, region in enumerate(row):
            image.paste(region.image, (c * width, r * height))
            for cell, token in enumerate(region.tokens):
                y, x = divmod(cell, wide)
                tokens[(r * high + y) * grid[1] + c * wide + x] = token
    return Region(name, image, grid, tokens)


def _name(number: int, of: int, part: str) -> str:
    return f"{image_name(number, of)}, {part}" if part else image_name(number, of)


def _renamed(region: Region, name: str) -> Region:
    return Region(name, region.image, region.grid, region.tokens)
