"""LLaVA-1.5-7B with random weights, as the shape that single parts are measured at."""

import argparse

from vistrim.benchmark.making import make_subject
from vistrim.benchmark.shapes import SHAPES
from vistrim.benchmark.subject import Subject, Wanted

NAME = "llava-1.5-7b"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options for the shape of decoder and prompt; the real one's by default."""
    parser.add_argument("--layers", type=int, default=SHAPES[NAME].layers)
    parser.add_argument("--hidden", type=int, default=SHAPES[NAME].hidden)
    parser.add_argument("--visual-tokens", type=int, default=SHAPES[NAME].images.tokens)
    parser.add_argument("--text-tokens", type=int, default=64)


def make(options: argparse.Namespace, layers: int, dtype: str = "float32", distinct: int | None = None) -> Subject:
    """The model on the CPU with so many layers, all or ``distinct`` with their own weights, and one prompt."""
    wanted = Wanted(
        NAME,
        layers=layers,
        hidden=options.hidden,
        distinct_layers=distinct,
        visual_tokens=options.visual_tokens,
        text_tokens=options.text_tokens,
        dtype=dtype,
        device="cpu",
    )
    return make_subject(wanted)
