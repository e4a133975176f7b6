"""Measures a generation while it runs and turns the measurements into a report."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from transformers.cache_utils import Cache

from vistrim.architectures import ModelSpec
from vistrim.architectures.tested import TESTED
from vistrim.core import costs
from vistrim.core.layout import Picture
from vistrim.core.selection import Selection
from vistrim.engine.inputs.prompt import Prompt
from vistrim.engine.report.guide_record import GuideRecord
from vistrim.engine.report.timing import Stopwatch, clock
from vistrim.engine.report.tracer import Merged, Tracer
from vistrim.engine.report.trim_report import Stage, TrimReport
from vistrim.engine.tokens.token_map import TokenMap
from vistrim.methods.base.method import Method

SHORT_PROMPT = 128
"""Prompt tokens below which fixed costs per layer outweigh what trimming saves."""

EMBEDDED = (
    "the prompt came as `inputs_embeds`, which do not tell visual tokens from text, so nothing was trimmed: if it has "
    "images, pass `input_ids` with `pixel_values` (or `mm_encoder_outputs`), or call model.generate() with both "
    "`input_ids` and `inputs_embeds`"
)
UNTOLD = (
    "nothing told where answers begin in this forward pass: visual tokens were ranked as if its last token ended the "
    "prompt; if it scores answers, pass `labels` or `logits_to_keep` (answer tokens + 1), or run it in "
    "run.answer_from(...)"
)
IN_DOUBT = (
    "the first token of `logits_to_keep` was taken for the last prompt token of all samples: if their prompts differ "
    "in length, pass `labels`, or run the forward pass in run.answer_from(...)"
)


def devices_of(spec: ModelSpec, first: torch.device) -> tuple[torch.device, ...]:
    """The devices that a model's layers are on, and the one on which its inputs are."""
    return tuple({first, *(parameter.device for layer in spec.layers for parameter in layer.parameters())})


@dataclass
class Recorder:
    """Collects the measurements of one generation, from the moment it is made.

    The first forward pass is the prefill; the later ones are decoding steps. What it holds from the end of the prefill
    on are plain numbers: no tensor of the generation lives longer for it.
    """

    spec: ModelSpec
    method: Method
    notation: str
    device: torch.device
    tracer: Tracer | None = None
    guided: GuideRecord | None = None
    batch: int = 0
    prompt: int = 0
    past: int = 0
    visual: tuple[int, ...] = ()
    source: Prompt | None = None
    cuts: list[tuple[int, TokenMap]] = field(default_factory=list)
    prompt_tokens: tuple[int, ...] = ()
    question_tokens: tuple[int, ...] = ()
    encoded: tuple[Picture, ...] = ()
    rows: list[int] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    cached_full: list[int] = field(default_factory=list)
    visual_per_layer: list[tuple[int, ...]] = field(default_factory=list)
    structured: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    selection: Stopwatch = field(init=False)
    select_seconds: float = 0.0
    devices: tuple[torch.device, ...] = field(init=False)
    prefill_began: float = field(init=False)
    prefill_ended: float | None = None
    decoding_began: float = 0.0
    ended: float = 0.0
    steps: int = 0
    generated: int = 0
    window_ended_annealing: bool = False
    window_hides_images: bool = False
    ranked_by_row_end: bool = False
    ranked_in_doubt: bool = False
    unseen: bool = False
    held_bytes: int = 0
    full_bytes: int = 0
    kv_tokens: list[tuple[int, ...]] = field(default_factory=list)
    kv_tokens_per_step: list[tuple[int, ...]] = field(default_factory=list)
    kv_bytes_per_step: list[int] = field(default_factory=list)
    kv_bytes_full_per_step: list[int] = field(default_factory=list)
    kv_visual_bytes_per_step: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.devices = devices_of(self.spec, self.device)
        self.selection = Stopwatch(self.devices)
        self.prefill_began = clock(*self.devices)

    @property
    def in_prefill(self) -> bool:
        """Whether the prefill is still running."""
        return self.prefill_ended is None

    def begin_prefill(
        self,
        batch: int,
        length: int,
        past: int,
        cache: Cache | None,
        prompt: Prompt | None,
        encoded: tuple[Picture, ...] = (),
    ) -> None:
        """Note the prompt before layer 0, and the pictures that were encoded for it."""
        self.encoded = encoded
        self.batch, self.prompt, self.past = batch, length, past
        depth = self.spec.decoder_shape.layers
        self.cached_full = [layer.full_length for layer in cache.layers] if cache is not None else [0] * depth
        self.visual, self.prompt_tokens = (0,) * batch, (length,) * batch
        if prompt is not None:
            self.source = prompt
            self.visual = prompt.tokens.n_visual
            self.prompt_tokens = tuple(n - prompt.inputs.border.drafted for n in prompt.tokens.n_valid)

    def read_question(self, lengths: tuple[int, ...]) -> None:
        """Note that the decoder has read a question of so many tokens for each sample."""
        if self.in_prefill:
            self.question_tokens = lengths

    def layer_ran(self, rows: int, cached: int, tokens: TokenMap | None) -> None:
        """Note what a layer is given in prefill: rows to compute, and tokens cached before."""
        if not self.in_prefill:
            return
        self.rows.append(rows)
        self.cached.append(cached)
        self.visual_per_layer.append(tokens.n_visual if tokens is not None else (0,) * self.batch)

    def layer_structured(self, layer: int, flops: int, alone: tuple[int, ...]) -> None:
        """Note the FLOPs of a layer that leaves something out: of the batch, and of each sample in one of its own."""
        if self.in_prefill:
            self.structured[layer] = flops, alone

    def cut(self, layer: int, before: TokenMap, selection: Selection, left: TokenMap) -> None:
        """Note which tokens are left from a layer on; passes without a cache repeat the prefill and are not noted."""
        if not self.in_prefill:
            return
        self.cuts.append((layer, left))
        if self.tracer is not None:
            merges = selection.merge_into is not None or selection.hidden is not None
            made = Merged(before.slots, selection.merge_into, selection.hidden is not None) if merges else None
            self.tracer.merged.append(made)

    @contextmanager
    def selecting(self) -> Iterator[None]:
        """Time a piece of the selection; in decoding nothing is timed, and the device never waited for."""
        with self.selection.running() if self.in_prefill else nullcontext():
            yield

    def end_forward(self, cache: Cache | None) -> None:
        """Note the cache after a forward pass."""
        if self.in_prefill:
            self.prefill_ended = clock(*self.devices)
            self._settle(cache)
            self.decoding_began = self.ended = time.perf_counter()
        else:
            self.steps += 1
            self.ended = time.perf_counter()
        if cache is not None:
            self.look_at(cache)
            if self.tracer is not None:
                self.tracer.look_at(self.steps, cache)
            self.kv_bytes_per_step.append(self.held_bytes)
            self.kv_bytes_full_per_step.append(self.full_bytes)
            self.kv_visual_bytes_per_step.append(visual_bytes(cache))
            self.kv_tokens_per_step.append(tuple(map(sum, zip(*self.kv_tokens, strict=True))))

    def look_at(self, cache: Cache) -> None:
        """Note what a cache holds now."""
        self.held_bytes, self.full_bytes = cache_bytes(cache)
        self.kv_tokens = [layer.held for layer in cache.layers]

    def end_generation(self, new_tokens: int, cache: Cache | None) -> None:
        """Note the end of ``generate``."""
        self.ended = clock(*self.devices)
        self.generated = new_tokens
        if cache is not None:
            self.look_at(cache)

    def report(self) -> TrimReport:
        """Sum up."""
        shape = self.spec.decoder_shape
        depth = shape.layers
        flops = sum(self._layer_flops(layer, None, rows) for layer, rows in enumerate(self.rows))
        per_sample = [self._visual_of(b) for b in range(self.batch)]
        flops_full = self.batch * costs.prefill_flops(shape, [self.prompt] * depth, self.cached_full)
        # The first token comes from the prefill; a step may yield several when candidates were drafted.
        decoded = self.generated - 1 if self.generated else self.steps
        prefill_ended = self.prefill_ended or self.prefill_began
        found = TrimReport(
            model=self.spec.name,
            method=self.notation,
            visual_tokens=list(self.visual),
            prompt_tokens=list(self.prompt_tokens),
            visual_tokens_per_layer=[list(n) for n in self.visual_per_layer],
            kv_tokens_per_layer=[list(n) for n in self.kv_tokens],
            kv_tokens_per_step=[list(n) for n in self.kv_tokens_per_step],
            kv_bytes_per_step=self.kv_bytes_per_step.copy(),
            kv_bytes=self.held_bytes,
            kv_bytes_peak=max(self.kv_bytes_per_step, default=0),
            kv_bytes_full=self.full_bytes,
            kv_bytes_full_per_step=self.kv_bytes_full_per_step.copy(),
            kv_visual_bytes_per_step=[held for held, _ in self.kv_visual_bytes_per_step],
            kv_visual_bytes_full_per_step=[full for _, full in self.kv_visual_bytes_per_step],
            prefill_flops=flops,
            prefill_flops_full=flops_full,
            prefill_flops_per_sample=[self._flops_alone(b, visual) for b, visual in enumerate(per_sample)],
            method_flops=[self._method_flops(b, visual) for b, visual in enumerate(per_sample)],
            vision_flops=costs.vision_flops(self.spec.images.cost, self.encoded) if self.spec.images.cost else None,
            prefill_seconds=prefill_ended - self.prefill_began,
            decode_seconds_per_token=(self.ended - self.decoding_began) / decoded if decoded else None,
            select_seconds=self.select_seconds,
            generated_tokens=self.generated or self.steps,
            stages=self.stages.copy(),
            warnings=self._warnings(flops < flops_full),
            guide_seconds=0.0,
            exited=[False] * self.batch,
            exit_scores=[],
            trace=self.tracer.trace(self.steps) if self.tracer is not None else None,
        )
        return found if self.guided is None else self.guided.complete(found, self.spec)

    def _visual_of(self, sample: int) -> list[int]:
        return [counts[sample] for counts in self.visual_per_layer]

    def _layer_flops(self, layer: int, sample: int | None, rows: int) -> int:
        """FLOPs of a layer in prefill for so many rows: of a sample in a batch of its own, or (None) of the batch."""
        if layer in self.structured:
            together, alone = self.structured[layer]
            return together if sample is None else alone[sample]
        flops = costs.layer_flops(self.spec.decoder_shape.at(layer), rows, rows + self.cached[layer])
        return flops * (self.batch if sample is None else 1)

    def _flops_alone(self, sample: int, visual_per_layer: Sequence[int]) -> int:
        """FLOPs of a sample's prefill in a batch of its own, without padding and fillers."""
        text = self.prompt_tokens[sample] - self.visual[sample]
        return sum(self._layer_flops(layer, sample, text + n) for layer, n in enumerate(visual_per_layer))

    def _method_flops(self, sample: int, visual_per_layer: Sequence[int]) -> int:
        """FLOPs of the method's own networks, and of what the decoder read for it beside the prompt."""
        shape = self.spec.decoder_shape
        read = self.question_tokens[sample] if self.question_tokens else 0
        return self.method.own_flops(self.spec.facts, visual_per_layer) + costs.prefill_flops(
            shape, [read] * shape.layers
        )

    def _settle(self, cache: Cache | None) -> None:
        """Write down as numbers what the prefill did, whose end was waited for, and let go of its tensors."""
        self.select_seconds = self.selection.seconds
        source, cuts = self.source, self.cuts
        self.source, self.cuts = None, []
        if source is not None:
            self._settle_stages(source, cuts)
            rows = source.tokens.visual.tolist()
            slots = tuple(tuple(self.past + i for i, visual in enumerate(row) if visual) for row in rows)
            for layer in cache.layers if cache is not None else ():
                layer.note_visual(slots)
        if self.tracer is not None:
            self.tracer.end_prefill(self.batch, self.past, source, self.stages)

    def _settle_stages(self, source: Prompt, cuts: list[tuple[int, TokenMap]]) -> None:
        # The n-th visual token of a sample is the one with n visual tokens in front of it.
        number = source.tokens.visual.cumsum(1) - 1
        for layer, left in cuts:
            # Once to the host, where picking the numbers of each sample waits for nothing.
            numbers, visual, merged_into = (
                x.cpu() for x in (number.gather(1, left.slots - self.past), left.visual, left.merged)
            )
            kept, merged = (
                [sorted(numbers[b, rows[b]].tolist()) for b in range(self.batch)] for rows in (visual, merged_into)
            )
            self.stages.append(Stage(layer, kept, merged))

    def _warnings(self, fewer_flops: bool) -> list[str]:
        steps = zip(self.kv_bytes_per_step, self.kv_bytes_full_per_step, strict=True)
        smaller_cache = any(held < full for held, full in steps)
        if not any(self.visual) and not smaller_cache:
            return [EMBEDDED] if self.unseen else ["no visual tokens in the prompt: there was nothing to trim"]
        found = []
        if not fewer_flops and not smaller_cache:
            found.append("nothing was trimmed: the method kept every visual token")
        # Where steps follow, it was a prompt.
        if self.ranked_by_row_end and not self.steps:
            found.append(UNTOLD)
        if self.ranked_in_doubt:
            found.append(IN_DOUBT)
        if self.window_hides_images:
            found.append(
                "some cuts were ranked by a layer with a sliding window shorter than the prompt: visual tokens that it "
                "does not see went first"
            )
        if self.window_ended_annealing:
            found.append(
                "the sequence outgrew the model's sliding window: from then on nothing more was annealed in the layers "
                "that have one"
            )
        if self.past + self.prompt < SHORT_PROMPT:
            found.append(
                f"short prompt ({self.past + self.prompt} tokens): fixed costs outweigh what trimming saves, "
                "expect no speed-up"
            )
        if self.spec.model_type not in TESTED:
            found.append(
                f"model type {self.spec.model_type} is not in vistrim's tested families: compare its answers with "
                "untrimmed ones"
            )
        return found


def cache_bytes(cache: Cache) -> tuple[int, int]:
    """Bytes of all keys and values that a cache holds, and would hold had nothing been removed."""
    held = full = 0
    for layer in cache.layers:
        # Gradient checkpointing keeps transformers from filling a cache that it was given.
        if columns := layer.stored:
            size = layer.keys.nbytes + layer.values.nbytes
            held += size
            full += size // columns * layer.full_length
    return held, full


def visual_bytes(cache: Cache) -> tuple[int, int]:
    """Bytes of the keys and values of visual tokens alone, likewise."""
    held = full = 0
    for layer in cache.layers:
        if columns := layer.stored:
            entry = (layer.keys.nbytes + layer.values.nbytes) // (columns * layer.keys.shape[0])
            now, untrimmed = layer.visual_entries
            held += now * entry
            full += untrimmed * entry
    return held, full
