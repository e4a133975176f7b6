"""An independent reference for trimming in any family: the stock model, in which removed tokens are hidden.

Every step runs transformers' own forward pass over the whole conversation, without a cache and with all images and
videos, so that places, masks, DeepStack, soft caps and everything else are its own. Hooks on the decoder layers hide a
removed token from all queries that came after its removal; hooks on the attention modules read the eager attention
weights, by which the next layer's tokens are chosen within the same pass. No code of the package is used.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.families.zoo import Family, Sample
from tests.families.zoo.family import IMAGE, VIDEO
from tests.oracle import Schedule, keep_all

REFERENCE = 1e-4
"""Allowed `error` of fp32 logits against the reference, which multiplies larger matrices: some random weights amplify
rounding more than others."""


@dataclass
class MaskedReference:
    """One sample under a schedule, on a model with eager attention.

    Attributes
    ----------
    family : Family
        Of the model; it puts the inputs together.
    model : PreTrainedModel
        With eager attention.
    schedule : callable
        Visual tokens to keep of n at layer and step, as in `tests.oracle`.
    enters : callable, optional
        Chosen before the decoder: (features ``[n, D]`` of the turn's visual tokens, their rows ``[n]``) -> rows that
        enter layer 0. The schedule counts from these.
    ahead : bool
        Whether a prefill cut is ranked by the layer about to run, on all tokens that would enter it, instead of by the
        layer before.
    padding : int
        Padding in front of the prompt in its batch, which counts toward a window that ends annealing.
    decode_rows : {"token", "answer", "prompt"}
        Rows that rank while decoding: the current token, all since the last prompt token, or the question.
    """

    family: Family
    model: Any
    schedule: Schedule = keep_all
    enters: Callable[[Tensor, Tensor], Collection[int]] | None = None
    ahead: bool = False
    padding: int = 0
    decode_rows: str = "token"
    turns: list[Sample] = field(init=False, default_factory=list)
    visual: set[int] = field(init=False, default_factory=set)
    total: int = field(init=False, default=0)
    cache: list[set[int]] = field(init=False)
    seen: list[Tensor] = field(init=False)
    read: list[list[Tensor]] = field(init=False)
    question: range = field(init=False)
    step: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        decoder = self.model.get_decoder()
        # Llama 4 keeps a text model with a head of its own.
        self.layers = getattr(decoder, "model", decoder).layers
        self.cache = [set() for _ in self.layers]
        # Attention of the rows of each layer that rank while decoding, since the last prompt began.
        self.read = [[] for _ in self.layers]
        # What each row saw when it was computed. In a cached generation it is never computed again.
        self.seen = [torch.zeros(0, 0, dtype=torch.bool) for _ in self.layers]

    @property
    def length(self) -> int:
        return sum(len(turn.ids) for turn in self.turns)

    @torch.no_grad()
    def prefill(self, sample: Sample, ranking: int = -1, protected: Collection[int] = ()) -> Tensor:
        """Read a prompt (or a further turn) and return the logits of its last token.

        The row ``ranking`` ranks; ``protected`` rows of the turn are never removed, although they show an image.
        """
        first = self.length
        placeholders = [i for i, token in enumerate(sample.ids) if token in (IMAGE, VIDEO) and sample.media]
        new = {first + i for i in placeholders if i not in protected}
        self.step = 0
        self.question = range(max(new, default=first - 1) + 1, first + len(sample.ids))
        return self._run(sample, new, ranking)

    @torch.no_grad()
    def decode(self, token: int) -> Tensor:
        """Read one generated token and return the logits of the next."""
        if token in (IMAGE, VIDEO):
            raise ValueError(f"The answer has the placeholder {token}, which stands for an image.")
        self.step += 1
        return self._run(Sample([token]), set(), -1)

    def kv_lengths(self) -> list[int]:
        """Tokens that each layer's cache should hold, as long as no window has evicted any."""
        return [self.length - len(self.visual) + len(kept) for kept in self.cache]

    def held(self) -> list[list[int]]:
        """Rows that each layer's cache should hold: text and kept tokens, the last of them in a window."""
        found = []
        for at, kept in enumerate(self.cache):
            rows = sorted(set(range(self.length)) - self.visual | kept)
            window = self.window(at)
            found.append(rows if window is None else rows[-(window - 1) :])
        return found

    def _run(self, turn: Sample, new: set[int], ranking: int) -> Tensor:
        self.turns.append(turn)
        self.visual |= new
        inputs = placed(self.family.batch([self.family.joined(self.turns)]), self.model)
        running = self.new_pass(self.length - len(turn.ids), new, ranking)
        with running.watching(), _left_as_it_was(self.model):
            logits = self.model(**inputs, use_cache=False).logits
        return logits[0, -1]

    def note(self, at: int, received: Tensor, ranking: int) -> None:
        """Keep the rows of a layer's attention ``[tokens, tokens]`` that rank while decoding."""
        if self.step == 0 and self.decode_rows == "prompt":
            self.read[at] = [received[row] for row in self.question]
        elif self.step == 0 or self.decode_rows == "token":
            self.read[at] = [received[ranking]]
        elif self.decode_rows == "answer":
            self.read[at].append(received[ranking])

    def new_pass(self, first: int, new: set[int], ranking: int) -> "Pass":
        """A forward pass over the conversation so far."""
        return Pass(self, first, new, ranking)

    def window(self, at: int) -> int | None:
        """How far a layer looks back."""
        text = self.model.config.get_text_config()
        types = getattr(text, "layer_types", None) or ["sliding_attention"] * len(self.layers)
        return getattr(text, "sliding_window", None) if types[at] == "sliding_attention" else None


@dataclass
class Pass:
    """One forward pass over the conversation so far, of which the rows from ``first`` on are new."""

    of: MaskedReference
    first: int
    new: set[int]
    ranking: int
    scores: list[Tensor] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = []
        for at, layer in enumerate(self.of.layers):
            handles += [
                layer.register_forward_pre_hook(self._before(at), with_kwargs=True),
                layer.self_attn.register_forward_hook(self._read),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, at: int) -> Callable[..., Any]:
        def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            hidden = args[0] if args else kwargs["hidden_states"]
            if self.of.step == 0:
                self.new = self._remaining(at, hidden, partial(self._look_ahead, at, layer, args, kwargs))
                self.of.cache[at] = self.of.cache[at] | self.new
            else:
                self._anneal(at)
            return args, {**kwargs, "attention_mask": self._mask(at, kwargs["attention_mask"], hidden)}

        return hook

    def _read(self, attention: Any, args: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        received = output[1][0].float().mean(0).cpu()
        self.of.note(len(self.scores), received, self.ranking)
        self.scores.append(received[self.ranking])

    def _remaining(self, at: int, hidden: Tensor, look_ahead: Callable[[], Tensor]) -> set[int]:
        """The prompt's visual tokens that this layer processes, of those that the layer before processed."""
        if at == 0:
            entered = self.new
            if self.of.enters is not None and self.new:
                rows = torch.tensor(sorted(self.new))
                entered = {int(i) for i in self.of.enters(hidden[0, rows], rows)}
            self._count = len(entered)
            self.of.total += len(entered)
            return entered
        wanted = min(len(self.new), self.of.schedule(self._count, at, 0))
        if wanted == len(self.new):
            return self.new
        return _top(self.new, look_ahead() if self.of.ahead else self.scores[-1], wanted)

    def _look_ahead(self, at: int, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Attention of a layer that is run once before its time, on all tokens that the layer before saw."""
        cached, seen = self.of.cache[at], self.of.seen[at]
        self.of.cache[at] = cached | self.new
        mask = self._mask(at, kwargs["attention_mask"], args[0] if args else kwargs["hidden_states"])
        self.of.cache[at], self.of.seen[at] = cached, seen
        # Its `forward` rather than itself: the hook that asks sits on the call.
        layer.forward(*args, **{**kwargs, "attention_mask": mask})
        return self.scores.pop()

    def _anneal(self, at: int) -> None:
        """Shrink a layer's cache while decoding, by the layer before (by this one's last step in the first)."""
        window = self.of.window(at)
        if window is not None and self.of.padding + self.of.length >= window:
            # Once a window is full it evicts by itself, and annealing ends.
            return
        cache = self.of.cache
        wanted = min(len(cache[at]), self.of.schedule(self.of.total, at, self.of.step))
        if wanted < len(cache[at]):
            before = max(at - 1, 0)
            # The question has ranked what was held when the first token came.
            by_question = self.of.decode_rows == "prompt"
            seen_by = self.of.length - self.of.step if by_question else self.of.length - 1
            reach = self.of.window(before) or self.of.length
            held_before = {i for i in cache[at if by_question else before] if seen_by - i < reach}
            by = self.of.read[before]
            score = {i: sum(row[i].item() for row in by) / len(by) for i in held_before}
            cache[at] = _top(cache[at], torch.tensor([score.get(i, -1.0) for i in range(self.of.length)]), wanted)

    def _mask(self, at: int, mask: Tensor | None, hidden: Tensor) -> Tensor:
        length = self.of.length
        if mask is None:
            seen = torch.ones(length, length, dtype=torch.bool).tril()
        else:
            seen = (mask if mask.dtype == torch.bool else mask >= 0)[0, 0].cpu().clone()
        seen[: self.first, : self.first] = self.of.seen[at]
        seen[: self.first, self.first :] = False
        seen[self.first :, sorted(self.of.visual - self.of.cache[at])] = False
        # A removed token is not computed any more; its row must only be finite.
        seen.fill_diagonal_(True)
        self.of.seen[at] = seen
        return torch.zeros(1, 1, length, length).masked_fill(~seen, torch.finfo(hidden.dtype).min).to(hidden)


def placed(inputs: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Inputs on the device of a model, and those that are no whole numbers in its number type."""
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }


def _top(rows: Collection[int], score: Tensor, count: int) -> set[int]:
    return set(sorted(rows, key=lambda i: (-score[i].item(), i))[:count])


@contextmanager
def _left_as_it_was(model: Any) -> Iterator[None]:
    """M-RoPE models keep the offset of the last conversation on the model, which other generations go on with."""
    base = model.base_model
    before = getattr(base, "rope_deltas", None)
    try:
        yield
    finally:
        if hasattr(base, "rope_deltas"):
            base.rope_deltas = before
