"""Answers by transformers under `vistrim.trim`, with the positions of vLLM, and how they compare."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import vistrim
from vistrim.methods import Method
from vistrim.methods.base.notation import parse_method
from vistrim.prompting import format_prompts

TIE = 1e-3
"""Difference of the two best logits below which rounding decides."""


@dataclass(frozen=True)
class Question:
    """A prompt about images in files."""

    prompt: str
    images: tuple[Path, ...]

    def opened(self) -> list[Image.Image]:
        return [Image.open(path).convert("RGB") for path in self.images]


@dataclass(frozen=True)
class Answer:
    """An answer with, for each token, the difference between the best two logits; the prompt is that after trimming."""

    tokens: list[int]
    gaps: list[float]
    prompt_tokens: int

    def agrees(self, other: list[int]) -> bool:
        """Whether another answer is the same up to the first tie in which it differs."""
        for mine, its, gap in zip(self.tokens, other, self.gaps, strict=False):
            if mine != its:
                return gap < TIE
        return len(self.tokens) == len(other)


def renumbering(notation: str) -> Method:
    """The method with consecutive positions, also if it has no such parameter."""
    method = parse_method(notation)
    if hasattr(method, "positions"):
        return method
    of = type(method)
    kind = type(of.__name__, (of,), {"name": of.name, "renumbers": property(lambda self: True)})
    return kind(**{field.name: getattr(method, field.name) for field in fields(method) if field.init})


def asked_together(processor: Any, questions: list[Question]) -> Any:
    """Inputs for a batch of questions that have the same number of images."""
    return format_prompts(processor, [each.prompt for each in questions], [each.opened() for each in questions])


@torch.no_grad()
def answers(model: Any, inputs: Any, notation: str | None, new_tokens: int, renumbers: bool = True) -> list[Answer]:
    """Answer with the method, or untouched."""
    options = {"max_new_tokens": new_tokens, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    given = inputs["attention_mask"].sum(1).tolist()
    if notation is None:
        found = model.generate(**inputs, **options)
    else:
        method = renumbering(notation) if renumbers else parse_method(notation)
        with vistrim.trim(model, method) as run:
            found = model.generate(**inputs, **options)
        visual = zip(run.report.visual_tokens, run.report.visual_tokens_per_layer[0], strict=True)
        given = [tokens - whole + kept for tokens, (whole, kept) in zip(given, visual, strict=True)]
    best = torch.stack(found.logits, 1).topk(2).values
    gaps = best[..., 0] - best[..., 1]
    end = model.generation_config.eos_token_id
    new = found.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    return [
        Answer(tokens[:length], gap[:length], prompt)
        for tokens, gap, prompt in zip(new, gaps.tolist(), given, strict=True)
        for length in [tokens.index(end) + 1 if end in tokens else len(tokens)]
    ]
