"""Train ``reference-lm``; ``training/README.md`` has the commands."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from training.reference_lm import weights
from training.reference_lm.base import load_base
from training.reference_lm.clock import Budget
from training.reference_lm.decoder import Decoder
from training.reference_lm.decoder_phase import DecoderSettings, Reader, start_projector, train_decoder, validate
from training.reference_lm.helpers import HELPERS
from training.reference_lm.images import Canvases, EasyVqa, draw_backgrounds
from training.reference_lm.log import Log
from training.reference_lm.packing import Wording
from training.reference_lm.processes import Processes
from training.reference_lm.projector import Projector
from training.reference_lm.streams import HARD_TASKS
from training.reference_lm.text import everyday_prompts, own_answers, training_prompts
from training.reference_lm.tower import Tower
from training.reference_lm.tower_phase import TowerSettings, probe_tower, train_tower
from vistrim.reference.tasks import SHORT_TASKS

_BACKGROUND_SHARES = (("train", 1), ("validation", 4))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True, help="the base, SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--out", type=Path, required=True, help="folder of weights, state and log")
    parser.add_argument("--init", type=Path, help="folder of weights to go on from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--bf16", action="store_true", help="compute the decoder in bf16 on a CPU too; fast with AVX-512 BF16"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backgrounds", type=int, default=1024, help="backgrounds to choose among")
    parser.add_argument("--tower-seconds", type=float, default=0, help="0: keep the tower of --init")
    parser.add_argument("--tower-steps", type=int, default=0, help="stop earlier, after so many steps")
    parser.add_argument("--tower-batch", type=int, default=192)
    parser.add_argument("--decoder-seconds", type=float, default=0)
    parser.add_argument("--decoder-steps", type=int, default=0, help="stop earlier, after so many steps")
    parser.add_argument("--decoder-batch", type=int, default=32)
    parser.add_argument("--decoder-patches", type=int, default=576, help="visual tokens that it sees at first")
    parser.add_argument("--decoder-partial", type=float, default=0.0, help="share of its time with so few")
    parser.add_argument("--decoder-part", type=int, default=32, help="images of a batch that are processed at a time")
    parser.add_argument("--length", type=int, default=424, help="packed text tokens per image")
    parser.add_argument("--texts", type=int, default=1536, help="prompts without image")
    parser.add_argument("--text-batch", type=int, default=12)
    parser.add_argument("--text-every", type=int, default=1, help="steps from one batch of them to the next")
    parser.add_argument("--text-length", type=int, default=96, help="tokens of an answer without image")
    parser.add_argument("--log-every", type=int, default=50, help="steps from one entry of the log to the next")
    parser.add_argument("--lr", type=float, default=1e-3, help="of projector and adapter")
    parser.add_argument("--warm-up", type=int, default=30, help="steps in which the learning rate of the decoder rises")
    parser.add_argument("--described", type=float, default=1.0, help="share of the scenes that are also described")
    parser.add_argument(
        "--hard-tasks", nargs="+", choices=SHORT_TASKS, default=HARD_TASKS, help="come more often than others"
    )
    parser.add_argument("--hard", type=int, default=2, help="how often these come; others: once")
    parser.add_argument("--words", type=int, default=20, help="questions for one word per scene, as far as they fit")
    parser.add_argument("--helpers", type=int, default=0, help="how often helper tasks come; others: once")
    parser.add_argument("--check", type=int, default=16, help="batches of probes, regression and validation")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.manual_seed(given.seed)
    # Its plans are made anew for every shape, which takes longer than they save.
    torch.backends.cuda.enable_cudnn_sdp(False)
    processes = Processes()
    log = Log(given.out, quiet=not processes.first)
    easy_rows = max(1, given.tower_batch // 12), max(1, given.decoder_batch // 8)
    device = torch.device(given.device)
    # Both are drawn before anything starts CUDA.
    drawn = [draw_backgrounds(split, given.backgrounds // share, given.workers) for split, share in _BACKGROUND_SHARES]
    train, held_out = (Canvases(backgrounds, device) for backgrounds in drawn)
    easy = EasyVqa(device)
    log.note("start", device=str(device), torch=torch.__version__, seed=given.seed)

    tower = Tower().to(device)
    state = {"seed": given.seed, "tower_batches": 0, "decoder_batches": 0}
    if given.init:
        weights.load_vision(tower.vision, given.init)
        state |= weights.load_state(given.init)

    if given.tower_seconds:
        if processes.size > 1:
            raise SystemExit("The tower is trained by one process: leave out torchrun, or --tower-seconds.")
        settings = TowerSettings(given.tower_batch - easy_rows[0], easy_rows[0], workers=given.workers)

        def save_tower(batches: int) -> None:
            weights.save(given.out, tower, None, None, state | {"tower_batches": batches})

        budget = Budget(given.tower_seconds, given.tower_steps)
        state["tower_batches"] = train_tower(
            tower, train, easy, settings, budget, log, state["tower_batches"], save_tower
        )
        tower.eval().requires_grad_(False)
        state["probes"] = probe_tower(tower, held_out, given.check, min(64, given.tower_batch), log)
        save_tower(state["tower_batches"])
    tower.eval().requires_grad_(False)
    if not given.decoder_seconds:
        return

    base, tokenizer = load_base(given.gguf)
    base.to(device)
    log.note("base", loaded=True)
    prompts = training_prompts(given.texts)
    half = len(prompts) // 2
    texts = [
        own_answers(base, tokenizer, part, given.text_length, sampled)
        for part, sampled in ((prompts[:half], False), (prompts[half:], True))
    ]
    everyday = own_answers(base, tokenizer, everyday_prompts()[: given.texts], given.text_length, sampled=False)
    log.note("texts", sequences=[len(part) for part in texts], tokens=[part.tokens.shape[1] for part in texts])

    decoder = Decoder(base, dtype=torch.bfloat16 if given.bf16 or device.type == "cuda" else torch.float32).to(device)
    projector = Projector(tower.vision.config.hidden_size, base.config.hidden_size).to(device)
    if given.init is None or not (given.init / "adapter-1.safetensors").exists():
        size = min(32, given.tower_batch)
        explained = start_projector(projector, tower, decoder, train, tokenizer, given.check, size)
        log.note("regression", explained=explained)
    else:
        weights.load_projector(projector, given.init)
        weights.load_adapter(decoder, given.init)
    reader = Reader(tower, projector, decoder, Wording(tokenizer))

    def save(batches: int) -> None:
        if processes.first:
            weights.save(given.out, tower, projector, decoder, state | {"decoder_batches": batches})

    decoder_settings = DecoderSettings(
        scenes=given.decoder_batch - easy_rows[1],
        easy=easy_rows[1],
        length=given.length,
        texts=given.text_batch,
        text_every=given.text_every,
        part=given.decoder_part,
        patches=given.decoder_patches,
        partial=given.decoder_partial,
        lr=given.lr,
        warm_up=given.warm_up,
        described=given.described,
        words=given.words,
        tasks=(*SHORT_TASKS, *given.hard_tasks * (given.hard - 1), *tuple(HELPERS) * given.helpers),
        log_every=given.log_every,
        workers=given.workers,
    )
    budget, both = Budget(given.decoder_seconds, given.decoder_steps), texts[0].and_also(texts[1])
    state["decoder_batches"] = train_decoder(
        reader, train, easy, both, decoder_settings, budget, log, state["decoder_batches"], save, processes
    )
    save(state["decoder_batches"])
    if not processes.first:
        return
    state["validation"] = validate(reader, held_out, everyday, given.check, given.decoder_batch, min(given.workers, 4))
    log.note("validation", **state["validation"])
    save(state["decoder_batches"])


if __name__ == "__main__":
    main()
