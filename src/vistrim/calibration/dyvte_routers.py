"""Training of DyVTE's routers on a frozen model.

The authors draw one layer for each training step, continue the batch from there with and without the image, and train
the router of that layer on the result (1 % of LLaVA-665k, one epoch, learning rate 6e-5, batches of 128). Here, every
layer is measured once for every sample (`vistrim.calibration.dyvte_exits`), which costs about half a forward pass more,
and all routers are trained on the same measurements over several epochs. The loss is the authors': plain cross entropy
on the two logits.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from vistrim._utils.files import save_whole
from vistrim.calibration.dyvte_exits import exits
from vistrim.core.routing import router_logits
from vistrim.errors import ResumeError
from vistrim.evaluation.items import Item

ITEMS_PER_FILE = 256
HELD_OUT = 0.1
"""Share of the samples on which routers are evaluated."""
LEAST_SAMPLES = 10


def collect(
    model: Any,
    processor: Any,
    items: Sequence[Item],
    folder: Path,
    made_for: str,
    batch_size: int,
    advance: Callable[[int], None] = lambda items: None,
) -> dict[str, Tensor]:
    """Measure the exits of many items, in files from which an interrupted collection resumes.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them.
    items : sequence of Item
        Items; adjacent ones share a batch, so sort them by task.
    folder : Path
        Folder of the files; created if it does not exist.
    made_for : str
        Identifier of the model, such as `vistrim.loading.fingerprint`.
    batch_size : int
        Items per forward pass.
    advance : callable
        Called with the number of items just measured, including those read from files.

    Returns
    -------
    dict of str to Tensor
        See `vistrim.calibration.dyvte_exits.exits`.

    Raises
    ------
    ResumeError
        If a file is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(items), ITEMS_PER_FILE):
        some = items[start : start + ITEMS_PER_FILE]
        named = "\n".join([made_for, *(f"{item.id}\t{item.prompt}\t{item.answer}" for item in some)])
        path = folder / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.safetensors"
        if path.exists():
            advance(len(some))
        else:
            batches = (some[i : i + batch_size] for i in range(0, len(some), batch_size))
            save_whole(path, _joined(_measured(model, processor, batches, advance)))
        parts.append(_read(path))
    return _joined(parts)


def _measured(
    model: Any, processor: Any, batches: Iterator[Sequence[Item]], advance: Callable[[int], None]
) -> list[dict[str, Tensor]]:
    found = []
    for batch in batches:
        found.append(exits(model, processor, batch))
        advance(len(batch))
    return found


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ResumeError(f"{path} is damaged: delete it to measure its questions again") from error


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Trained:
    """Routers, and their results on held-out samples.

    Attributes
    ----------
    w1, w2 : Tensor
        ``[layers - 1, width, 2 * hidden]`` and ``[layers - 1, 2, width]`` float32.
    right_exits : float or None
        Share of the exits taken (at the first layer that votes for one) that the rule allows; None if none was taken.
    exit_depth : float
        Mean number of layers with visual tokens; a sample that never exits counts with all layers.
    allowed_depth : float
        The same if every sample exited after the first layer that the rule allows.
    """

    w1: Tensor
    w2: Tensor
    right_exits: float | None
    exit_depth: float
    allowed_depth: float


def check_samples(count: int) -> None:
    """Refuse too few samples for training and evaluation.

    Raises
    ------
    ValueError
        If there are fewer than `LEAST_SAMPLES`.
    """
    if count < LEAST_SAMPLES:
        raise ValueError(f"{count} questions are too few to train routers: give {LEAST_SAMPLES} or more")


def train_routers(
    summary: Tensor,
    may_exit: Tensor,
    width: int,
    epochs: int = 40,
    lr: float = 1e-3,
    batch_size: int = 256,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Trained:
    """Train one router per layer, all in parallel.

    Parameters
    ----------
    summary : Tensor
        ``[samples, layers - 1, 2 * hidden]`` float32: the question after each layer.
    may_exit : Tensor
        ``[samples, layers - 1]`` bool: whether the rule allows an exit there.
    width : int
        Hidden units; the authors use 2048, half of a hidden size of 4096.
    epochs, lr, batch_size
        Settings of AdamW with a cosine schedule. A tenth of the samples is held out.
    seed : int
        Seed of the initial weights (Xavier uniform, as the authors'), the split and the order.
    advance : callable
        Called after every epoch.

    Raises
    ------
    ValueError
        If there are too few samples.

    Notes
    -----
    All data is in memory: about ``8 * hidden * layers`` bytes for each sample, and the routers with the state of
    AdamW, 16 bytes for each of their ``layers * width * 2 * hidden`` weights.
    """
    check_samples(len(summary))
    generator = torch.Generator().manual_seed(seed)
    samples, layers, features = summary.shape
    order = torch.randperm(samples, generator=generator)
    held_out = max(1, round(HELD_OUT * samples))
    evaluated, trained = order[:held_out], order[held_out:]
    w1, w2 = _xavier(layers, width, features, generator), _xavier(layers, 2, width, generator)
    optimizer = torch.optim.AdamW([w1, w2], lr=lr, weight_decay=0.0)
    steps = epochs * -(-len(trained) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for _ in range(epochs):
        for batch in trained[torch.randperm(len(trained), generator=generator)].split(batch_size):
            logits = router_logits(summary[batch].transpose(0, 1), w1, w2)
            loss = cross_entropy(logits.flatten(0, 1), may_exit[batch].T.flatten().long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        advance()
    w1, w2 = w1.detach(), w2.detach()
    return Trained(w1, w2, *_judge(summary[evaluated], may_exit[evaluated], w1, w2))


def _xavier(layers: int, outputs: int, inputs: int, generator: torch.Generator) -> Tensor:
    bound = (6 / (inputs + outputs)) ** 0.5
    return torch.empty(layers, outputs, inputs).uniform_(-bound, bound, generator=generator).requires_grad_()


def _judge(summary: Tensor, may_exit: Tensor, w1: Tensor, w2: Tensor) -> tuple[float | None, float, float]:
    logits = router_logits(summary.transpose(0, 1), w1, w2)
    votes = (logits[..., 1] > logits[..., 0]).T
    exits, first = votes.any(1), votes.to(torch.uint8).argmax(1)
    right = may_exit.gather(1, first[:, None])[:, 0] & exits
    # An exit after layer l means that layers 0 to l had visual tokens.
    depth = torch.where(exits, first + 1, may_exit.shape[1] + 1)
    allowed = torch.where(may_exit.any(1), may_exit.to(torch.uint8).argmax(1) + 1, may_exit.shape[1] + 1)
    share = (right.sum() / exits.sum()).item() if exits.any() else None
    return share, depth.float().mean().item(), allowed.float().mean().item()
