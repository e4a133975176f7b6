"""An independent reference for trimming: dense, slow, one sample at a time, written from the formulas.

Every step computes the whole sequence again with all its tokens; a trimmed token is only hidden from the queries that
came after its removal, layer by layer. Positions are the original ones. No code of the package is used.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Schedule = Callable[[int, int, int], int]
"""Visual tokens to keep of n at layer and step."""


def st3_schedule(
    start: int,
    stride: int,
    ratio: float,
    decay: str = "constant",
    horizon: int = 1,
    floor: float | tuple[float, ...] = 0.0,
    interval: int = 1,
) -> Schedule:
    """G(layer, t) as the design states it; with several floors, each layer has its own."""

    def f(t: int) -> float:
        return {
            "constant": 1.0,
            "linear": max(0.0, 1 - t / horizon),
            "cosine": 0.5 * (1 + math.cos(math.pi * min(t, horizon) / horizon)),
            "exponential": math.exp(-3 * t / horizon),
        }[decay]

    def g(n: int, layer: int, t: int) -> int:
        if t % interval or (t and decay == "constant"):
            return n
        cuts = 0 if layer < start else (layer - start) // stride + 1
        left = n * (1 - ratio) ** cuts
        least = floor[layer] if isinstance(floor, tuple) else floor
        return max(math.floor(left * f(t) + 0.5), math.ceil(least * left - 1e-9))

    return g


def st3_oracle(model: Any, settings: dict[str, Any], **options: Any) -> "Oracle":
    """An oracle of ST³, PVTP or VTA: `st3_schedule` with its settings, and what ranks while decoding."""
    ranking = {name: settings[name] for name in ("decode_rows", "spread") if name in settings}
    schedule = {name: value for name, value in settings.items() if name not in ranking}
    return Oracle(model, st3_schedule(**schedule), **ranking, **options)


def keep_all(n: int, layer: int, t: int) -> int:
    return n


@dataclass
class Oracle:
    """One sample under a schedule, on a model with eager attention."""

    model: Any
    schedule: Schedule = keep_all
    enters: Callable[[Tensor, Tensor], tuple[Tensor, set[int]]] | None = None
    """Input stage: (embeddings [S, D], visual rows) -> (new embeddings, rows that enter layer 0)."""
    decode_rows: str = "token"
    """Who ranks while decoding: the current token, the answer so far from the last prompt token on, or the question."""
    spread: float = 0.0
    """Share of the tokens left by an eviction that are first in the order of the fraction of number / golden ratio."""
    embeddings: Tensor = field(init=False)
    visual: set[int] = field(init=False, default_factory=set)
    total: int = field(init=False, default=0)
    cache: list[set[int]] = field(init=False)
    seen: list[Tensor] = field(init=False)
    read: list[list[Tensor]] = field(init=False)
    """Per layer: attention ``[tokens]`` of each ranking row since the last prompt began."""
    step: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        text = self.model.config.text_config
        self.depth = text.num_hidden_layers
        self.window = getattr(text, "sliding_window", None)
        self.embeddings = torch.zeros(0, text.hidden_size)
        self.cache = [set() for _ in range(self.depth)]
        self.read = [[] for _ in range(self.depth)]
        self.seen = [torch.zeros(0, 0, dtype=torch.bool) for _ in range(self.depth)]

    @torch.no_grad()
    def prefill(
        self, ids: list[int], pixels: Tensor | None, ranking: int = -1, protected: Collection[int] = ()
    ) -> Tensor:
        """Read a prompt (or a further turn) and return the logits of its last token.

        The row ``ranking`` ranks; ``protected`` rows are never removed, although they show an image.
        """
        embeddings = self.model.get_input_embeddings()(torch.tensor(ids))
        image = self.model.config.image_token_id
        first = len(self.embeddings)
        new = [i for i, t in enumerate(ids) if t == image and pixels is not None]
        if new:
            features = self.model.get_image_features(pixels, return_dict=True).pooler_output
            embeddings[new] = torch.cat(list(features))
            new = [i for i in new if i not in protected]
        enter = set(new)
        if self.enters is not None and new:
            embeddings, enter = self.enters(embeddings, torch.tensor(new))
        self.step = 0
        self.total += len(new)
        return self._run(embeddings, {first + i for i in new}, {first + i for i in enter}, ranking)

    @torch.no_grad()
    def decode(self, token: int) -> Tensor:
        """Read one generated token and return the logits of the next."""
        self.step += 1
        return self._run(self.model.get_input_embeddings()(torch.tensor([token])), set(), set(), -1)

    def _run(self, embeddings: Tensor, visual: set[int], alive: set[int], ranking: int) -> Tensor:
        first = len(self.embeddings)
        self.embeddings = torch.cat([self.embeddings, embeddings])
        self.visual |= visual
        length, n = len(self.embeddings), len(visual)
        decoder = self.model.get_decoder()
        hidden = self.embeddings[None]
        places = torch.arange(length)[None]
        rotary = decoder.rotary_emb(hidden, position_ids=places)
        weights: list[Tensor] = []
        score = torch.empty(0)
        for at, module in enumerate(decoder.layers):
            if self.step == 0:
                if at > 0:
                    alive = self._top(alive, score, min(len(alive), self.schedule(n, at, 0)))
                self.cache[at] = self.cache[at] | alive
            elif self.window is None or length < self.window:
                # Once a window is full it evicts by itself, and annealing ends.
                wanted = min(len(self.cache[at]), self.schedule(self.total, at, self.step))
                if wanted < len(self.cache[at]):
                    self.cache[at] = self._left(self.cache[at], max(0, at - 1), wanted)
            self._extend_visibility(at, first, length)
            mask = torch.zeros(1, 1, length, length).masked_fill(~self.seen[at], torch.finfo(torch.float32).min)
            handle = module.self_attn.register_forward_hook(lambda m, a, out: weights.append(out[1]))
            hidden = module(hidden, attention_mask=mask, position_ids=places, position_embeddings=rotary)
            handle.remove()
            received = weights[-1][0].float().mean(0)
            score = received[ranking]
            self._note(at, received, first, visual, ranking)
        return self.model.lm_head(decoder.norm(hidden))[0, -1]

    def _note(self, at: int, received: Tensor, first: int, visual: set[int], ranking: int) -> None:
        """Keep the rows of the attention ``[tokens, tokens]`` that rank while decoding."""
        if self.step == 0 and self.decode_rows == "prompt":
            question = range(max(visual, default=first - 1) + 1, len(received))
            self.read[at] = [received[row] for row in question] or [received[ranking]]
        elif self.step == 0 or self.decode_rows == "token":
            self.read[at] = [received[ranking]]
        elif self.decode_rows == "answer":
            self.read[at].append(received[ranking])

    def _left(self, rows: set[int], by: int, count: int) -> set[int]:
        """The visual tokens that an eviction leaves, ranked by a layer."""
        score = {i: sum(row[i].item() for row in self.read[by]) / len(self.read[by]) for i in rows}
        # The question has ranked before anything was evicted.
        held = rows if self.decode_rows == "prompt" else rows & self.cache[by]
        ranked = torch.tensor([score[i] if i in held else -1.0 for i in range(len(self.embeddings))])
        numbers = {row: number for number, row in enumerate(sorted(self.visual))}
        golden = (5**0.5 - 1) / 2
        spaced = set(sorted(rows, key=lambda i: numbers[i] * golden % 1)[: math.floor(self.spread * count + 1e-9)])
        return spaced | self._top(rows - spaced, ranked, count - len(spaced))

    def _extend_visibility(self, at: int, first: int, length: int) -> None:
        seen = torch.zeros(length, length, dtype=torch.bool)
        seen[:first, :first] = self.seen[at]
        # Before the query itself, and no further back than a window reaches.
        seen[first:] = torch.ones(length, length, dtype=torch.bool).tril()[first:]
        if self.window is not None:
            seen[first:] &= torch.ones(length, length, dtype=torch.bool).triu(1 - self.window)[first:]
        seen[first:, sorted(self.visual - self.cache[at])] = False
        # A removed token is not computed any more; its row must only be finite.
        seen[first:].diagonal(first).fill_(True)
        self.seen[at] = seen

    @staticmethod
    def _top(rows: set[int], score: Tensor, count: int) -> set[int]:
        return set(sorted(rows, key=lambda i: (-score[i].item(), i))[:count])

    def kv_lengths(self) -> list[int]:
        """Tokens that each layer's cache should hold."""
        text = len(self.embeddings) - len(self.visual)
        return [text + len(kept) for kept in self.cache]
