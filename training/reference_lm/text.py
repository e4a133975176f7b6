"""Text without images: everyday prompts, answers of the base model, and the drift of the adapter from them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn import functional as F

from training.reference_lm.decoder import Decoder, Weights

#: 200 prompts for measuring; training never sees them.
EVERYDAY = Path(__file__).parent / "everyday.txt"
_HERE = Path(__file__).parent
_COUNTRIES = ("Italy", "Spain", "Germany", "Canada", "Mexico", "Egypt", "India", "China", "Peru", "Norway", "Kenya")
_ACTIVITY_TEMPLATES = ("How do I {}?", "What do I need to {}?", "Is it hard to {}?", "Teach me to {}.")
_TOPIC_TEMPLATES = (
    "Explain {} in simple terms.",
    "What is {}?",
    "Write a short poem about {}.",
    "Give me three tips about {}.",
    "Why is {} important?",
    "Tell me an interesting fact about {}.",
    "Write a short story about {}.",
    "What should a beginner know about {}?",
    "Summarize the history of {}.",
    "What are the advantages and disadvantages of {}?",
    "How would you explain {} to a child?",
    "Write an email to a friend about {}.",
    "Ask me three questions about {}.",
    "What do people like about {}?",
    "Describe {} in one paragraph.",
    "List five words that have to do with {}.",
)


def training_prompts(number: int, seed: int = 0) -> list[str]:
    """Prompts made from templates, none of them in ``everyday.txt``."""
    rng = Random(f"reference-lm text:{seed}")
    filled = [
        *(template.format(topic) for template in _TOPIC_TEMPLATES for topic in _lines(_HERE / "topics.txt")),
        *(template.format(doing) for template in _ACTIVITY_TEMPLATES for doing in _lines(_HERE / "activities.txt")),
        *(f"What is the {fact} of {country}?" for fact in ("capital", "currency", "flag") for country in _COUNTRIES),
        *(f"What is {rng.randint(2, 99)} {sign} {rng.randint(2, 99)}?" for sign in ("plus", "minus", "times") * 20),
    ]
    chosen = sorted(set(filled) - set(everyday_prompts()))
    rng.shuffle(chosen)
    return chosen[:number]


def everyday_prompts() -> list[str]:
    """200 prompts that training never sees."""
    return _lines(EVERYDAY)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().split("\n") if line]


class Answers:
    """Prompts with the base's own answers, padded on the right.

    Attributes
    ----------
    tokens : torch.Tensor
        ``(N, S)`` int64.
    answered : torch.Tensor
        ``(N, S)`` bool: places whose next token belongs to the answer.
    """

    def __init__(self, tokens: torch.Tensor, answered: torch.Tensor) -> None:
        self.tokens, self.answered = tokens, answered

    def __len__(self) -> int:
        return len(self.tokens)

    def and_also(self, others: Answers) -> Answers:
        """Both, padded on the right to one length."""
        length = max(self.tokens.shape[1], others.tokens.shape[1])
        parts = []
        for part in (self, others):
            spare = (0, length - part.tokens.shape[1])
            parts.append((F.pad(part.tokens, spare), F.pad(part.answered, spare)))
        return Answers(*(torch.cat(pair) for pair in zip(*parts, strict=True)))

    def some(self, rows: torch.Tensor) -> Answers:
        return Answers(self.tokens[rows], self.answered[rows])


@torch.no_grad()
def own_answers(base: Any, tokenizer: Any, prompts: list[str], length: int, sampled: bool, batch: int = 768) -> Answers:
    """Generate answers of the base model, greedily or sampled at temperature 1."""
    device = base.device
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows: list[tuple[list[int], list[int]]] = []
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        longest = max(map(len, part))
        padded = torch.tensor([[tokenizer.eos_token_id] * (longest - len(row)) + row for row in part], device=device)
        seen = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in part], device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            given = base.generate(
                input_ids=padded,
                attention_mask=seen,
                max_new_tokens=length,
                do_sample=sampled,
                top_k=0,
                top_p=1.0,
                temperature=1.0,
                pad_token_id=tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )[:, longest:].tolist()
        for prompt, answer in zip(part, given, strict=True):
            end = answer.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in answer else len(answer)
            rows.append((prompt, answer[:end]))
    # The last token is only a target.
    size = max(len(prompt) + len(answer) - 1 for prompt, answer in rows)
    size += -size % 16
    tokens = torch.full((len(rows), size), tokenizer.eos_token_id)
    answered = torch.zeros(len(rows), size, dtype=torch.bool)
    for i, (prompt, answer) in enumerate(rows):
        read = [*prompt, *answer[:-1]]
        tokens[i, : len(read)] = torch.tensor(read)
        answered[i, len(prompt) - 1 : len(read)] = True
    return Answers(tokens.to(device), answered.to(device))


def drift(decoder: Decoder, weights: Weights, answers: Answers) -> torch.Tensor:
    """Mean KL divergence in nats of the adapted from the base's next-token distribution, over the answers.

    ``weights`` are the adapted ones.
    """
    embeddings = decoder.embed(answers.tokens)
    rows, length = answers.tokens.shape
    positions = torch.arange(length, device=answers.tokens.device).expand(rows, -1)
    with torch.no_grad():
        base = decoder(embeddings, positions, length, None, decoder.plain)
        target = decoder.logits(base[answers.answered]).log_softmax(-1)
    given = decoder.logits(decoder(embeddings, positions, length, None, weights)[answers.answered]).log_softmax(-1)
    return (target.exp() * (target - given)).sum(-1).mean()
