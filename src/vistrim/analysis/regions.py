"""Where the visual tokens of a prompt lie on its images, whole or cut into tiles."""

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
    """Find the grids of a prompt's visual tokens, and what each shows.

    Parameters
    ----------
    processor
        As `vistrim.load` returns it.
    inputs : mapping
        What the processor made of the prompt; of one sample.
    images : sequence of PIL.Image.Image
        The prompt's images as they were given to the processor.
    trace : Trace
        Trace of a generation from them: ``report.trace`` of `vistrim.trim` with ``trace=True``.

    Returns
    -------
    list of Region
        For each image: all of it, or its overview and its tiles put together. They are shown as the model saw them,
        where the processor returns pictures; otherwise as they were given.

    Raises
    ------
    ValueError
        If visual tokens form no grids, or it is not known where they lie.
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
    pictures = _as_seen(processor, inputs)
    if len(groups) == len(images):
        return whole_images(trace, pictures if len(pictures) == len(images) else images)
    return _tiled(processor, pictures, images, trace)


def _as_seen(processor: Any, inputs: Mapping[str, Any]) -> list[Image.Image]:
    """The pictures that the vision tower was given, without what pads them to the largest."""
    pixels, sizes = pixels_of(inputs), inputs.get("image_sizes")
    if pixels is None:
        return []
    found = list(pixels)
    if sizes is not None and len(sizes) == len(found):
        found = [picture[:, :height, :width] for picture, (height, width) in zip(found, sizes.tolist(), strict=True)]
    return [image_as_seen(picture, processor.image_processor) for picture in found]


def _tiled(
    processor: Any, pictures: Sequence[Image.Image], images: Sequence[Image.Image], trace: Trace
) -> list[Region]:
    parts = whole_images(trace, pictures)
    tiles = find_tiles(processor, images)
    if len(tiles) != len(parts):
        raise ValueError(f"{len(parts)} pictures were encoded, not the {len(tiles)} tiles of the images")
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
    """Equally large regions as one."""
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
