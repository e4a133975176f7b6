"""Measure how far ``reference-lm`` is from its base model on text.

Prints the mean KL divergence of its next-token distribution from the base's, over the base's own answers to prompts
that training never sees.

    python -m training.reference_lm.measure_drift --gguf FILE
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vistrim
from training.reference_lm.base import load_base
from training.reference_lm.text import Answers, everyday_prompts, own_answers
from vistrim._utils.progress import progress_bars


@torch.inference_mode()
def mean_drift(base: Any, tokenizer: Any, model: Any, prompts: list[str], length: int, rows: int = 8) -> float:
    """Mean KL divergence in nats per token of ``base``'s greedy answers of at most ``length`` tokens."""
    answers = own_answers(base, tokenizer, prompts, length, sampled=False)
    words = base.config.vocab_size
    away = []
    with progress_bars({"answers": len(answers)}) as advance:
        for part in torch.arange(len(answers)).split(rows):
            some = answers.some(part)
            target, given = (_log_probabilities(one, some, words) for one in (base, model))
            away.append((target.exp() * (target - given)).sum(-1))
            advance("answers", len(part))
    return torch.cat(away).mean().item()


def _log_probabilities(model: Any, answers: Answers, words: int) -> Tensor:
    """Log-probabilities of the words of the base after each answer token, ``(tokens, words)``.

    The image token is the last in the vocabulary, and the base does not have it.
    """
    # Padding is on the right, so that no token of an answer sees it.
    logits = model(input_ids=answers.tokens, use_cache=False).logits[answers.answered]
    return logits[:, :words].float().log_softmax(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True, help="the base, SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--model", default="reference-lm", help="name or folder of a checkpoint")
    parser.add_argument("--length", type=int, default=96, help="tokens of an answer")
    given = parser.parse_args()
    base, tokenizer = load_base(given.gguf)
    model, _ = vistrim.load(given.model)
    prompts = everyday_prompts()
    print(f"{mean_drift(base, tokenizer, model, prompts, given.length):.4f} nats on {len(prompts)} prompts")


if __name__ == "__main__":
    main()
