"""Facts, entered by hand, about the towers of families whose pictures have one grid of patches each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from tests.families.vision.patch_maps import Shown, joined, mosaic, shrunk_frame, square

Media = Mapping[str, Tensor]


@dataclass(frozen=True)
class Hand:
    """A family.

    Attributes
    ----------
    shown : callable
        The images and videos of a batch, for each modality.
    has_cls : bool
        Whether the tower's first token is a class token.
    block : int
        The deepest block of the two that the visual tokens are made of.
    last : bool
        Whether the tower's last hidden state is what they are made of.
    towers : tuple of str
        Names of the tower that sees images, and of that for videos.
    """

    shown: Callable[[Media], dict[str, list[Shown]]]
    has_cls: bool = False
    block: int = 1
    last: bool = False
    towers: tuple[str, str] = ("vision_tower", "vision_tower")


def each(picture: Shown) -> Callable[[Media], dict[str, list[Shown]]]:
    """All images look alike."""
    return lambda media: {"image": [picture] * len(media.get("pixel_values", ()))}


def in_rows(picture: Shown) -> Callable[[Media], dict[str, list[Shown]]]:
    """Samples with fewer images are filled up with black ones."""
    return lambda media: {"image": [picture] * int(media["pixel_values"].flatten(2).any(-1).sum())}


ALL3, ALL4, ALL6, ALL8 = range(3), range(4), range(6), range(8)
NEXT = {
    (12, 24): ((1, 2), ALL3, ALL6),
    (6, 36): ((1, 2), range(1, 2), ALL6),
    (24, 11): ((2, 1), ALL6, ALL3),
    (24, 24): ((2, 2), ALL6, ALL6),
    (24, 17): ((2, 2), ALL6, range(1, 5)),
}
"""Tiles, and rows and columns of patches that are left of them, by the size of the image."""
ONEVISION = {**{size: (plan, None) for size, plan in NEXT.items()}, (24, 24): (NEXT[24, 24], (4, 4))}
ONEVISION[24, 17] = (NEXT[24, 17], (5, 3))
NEXT_VIDEO = {
    (16, 32): ((1, 2), ALL4, ALL8),
    (8, 48): ((1, 2), range(1, 3), ALL8),
    (48, 8): ((2, 1), ALL8, range(1, 3)),
}


def sizes(media: Media) -> list[tuple[int, int]]:
    return [tuple(size) for size in media["image_sizes"].tolist()] if "image_sizes" in media else []


def films(media: Media) -> list[int]:
    """Frames of each video."""
    videos = media.get("pixel_values_videos")
    return [] if videos is None else [videos.shape[1]] * len(videos)


def next_shown(media: Media, before: int = 1) -> dict[str, list[Shown]]:
    return {"image": [mosaic(*NEXT[size], side=3, before=before) for size in sizes(media)]}


def narrow_shown(media: Media) -> dict[str, list[Shown]]:
    """A column of patches is left in the middle one of three tiles."""
    return {"image": [mosaic((1, 3), ALL3, range(4, 5), side=3, before=1)] * len(sizes(media))}


def onevision_shown(media: Media) -> dict[str, list[Shown]]:
    images = []
    alone = [n == 1 for n in media.get("batch_num_images", ()) for _ in range(n)]
    for size, tiled in zip(sizes(media), alone, strict=True):
        plan, shrunk = ONEVISION[size]
        images.append(mosaic(*plan, side=3, shrunk=shrunk) if tiled else joined([square(3)], newline=True))
    return {"image": images, "video": [joined([shrunk_frame(3, 2)] * n, newline=True) for n in films(media)]}


def next_video_shown(media: Media) -> dict[str, list[Shown]]:
    return {
        "image": [mosaic(*NEXT_VIDEO[size], side=4, before=1) for size in sizes(media)],
        "video": [joined([square(4, 2, before=1)] * n) for n in films(media)],
    }


def video_llava_shown(media: Media) -> dict[str, list[Shown]]:
    frames = [square(3, before=1, kept=1)] * sum(films(media))
    return each(square(3, before=1))(media) | {"video": frames}


MODEL = ("vision_model", "vision_model")
HANDS = {
    "llava": Hand(each(square(4, before=1)), has_cls=True, block=0),
    "llava-siglip": Hand(each(square(4)), block=0),
    "llava-class": Hand(each(square(4, before=1, kept=1)), has_cls=True, block=0),
    "vipllava": Hand(each(square(4, before=1)), has_cls=True),
    "llava_next": Hand(next_shown, has_cls=True, block=0),
    "llava_next-narrow": Hand(narrow_shown, has_cls=True, block=0),
    "llava_next-granite": Hand(lambda media: next_shown(media, before=0)),
    "llava_onevision": Hand(onevision_shown),
    "llava_next_video": Hand(next_video_shown, has_cls=True, block=0),
    "video_llava": Hand(video_llava_shown, has_cls=True, block=0, towers=("image_tower", "video_tower")),
    "internvl": Hand(each(square(6, 2, before=1)), has_cls=True, last=True),
    "internvl-normed": Hand(each(square(6, 2, before=1)), has_cls=True, last=True),
    "internvl-inner": Hand(each(square(6, 2, before=1)), has_cls=True, block=0),
    "qianfan_ocr": Hand(each(square(4, 2, before=1)), has_cls=True, last=True),
    "aya_vision": Hand(each(square(6, 2))),
    "cohere2_vision": Hand(each(square(6, 2)), last=True),
    "gemma3": Hand(each(square(6, 2)), last=True),
    "gemma3-cut": Hand(each(square(7, 2)), last=True),
    "paligemma": Hand(each(square(3)), last=True),
    "deepseek_vl": Hand(each(square(4)), last=True, towers=MODEL),
    "janus": Hand(each(square(4)), last=True, towers=MODEL),
    "ovis2": Hand(each(square(6, 2)), last=True),
    "idefics3": Hand(in_rows(square(6, 2)), last=True, towers=MODEL),
    "smolvlm": Hand(in_rows(square(6, 2)), last=True, towers=MODEL),
}
