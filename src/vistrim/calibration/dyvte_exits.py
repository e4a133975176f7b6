"""Training data of DyVTE's routers: the question after every layer, and whether the image was still needed there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from vistrim.calibration.text_alone import TextAlone, text_alone
from vistrim.core.query_text import text_behind_images
from vistrim.core.routing import Agreement, compare_answers, question_summary
from vistrim.core.selection import gather_rows, kept_rows
from vistrim.engine.inputs.appended_text import with_text_behind
from vistrim.evaluation.item_prompts import format_items
from vistrim.evaluation.items import Item
from vistrim.prompting import check_context

IGNORED = -100


@torch.no_grad()
def exits(model: Any, processor: Any, items: Sequence[Item]) -> dict[str, Tensor]:
    """Measure every possible exit of a batch of questions with known answers.

    The correct answer is read in one pass with all visual tokens. From every layer but the last one, the pass is then
    also continued with the text alone.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them; not being trimmed.
    items : sequence of Item
        Questions with their images and correct answers.

    Returns
    -------
    dict of str to Tensor
        "summary" ``[items, layers - 1, 2 * hidden]``, see `vistrim.core.routing.question_summary`; "alike" and
        "entropy_without" ``[items, layers - 1]`` and "entropy_full" ``[items]``, see
        `vistrim.core.routing.Agreement`. All float32, on the CPU.
    """
    inputs, labels = teacher_forced(model, processor, items)
    found = text_alone(model, inputs, 1, labels=labels)
    answer = _answer(found, labels)
    rows, counted = kept_rows(answer != IGNORED, (answer != IGNORED).sum(1).tolist())
    wanted = torch.where(counted, answer.gather(1, rows), IGNORED)
    head = model.get_output_embeddings()

    def logits(hidden: Tensor) -> Tensor:
        return head(gather_rows(hidden, rows, 0, 1))

    full, question = logits(found.last), _question(found)
    summaries, agreements = [], []
    for layer in range(1, len(found.spec.layers)):
        summaries.append(question_summary(found.entering(layer), question))
        agreements.append(compare_answers(full, logits(found.without_image_from(layer)), wanted))
    return {
        "summary": torch.stack(summaries, 1).cpu(),
        "alike": torch.stack([agreement.alike for agreement in agreements], 1).cpu(),
        "entropy_without": torch.stack([agreement.entropy_without for agreement in agreements], 1).cpu(),
        "entropy_full": agreements[0].entropy_full.cpu(),
    }


def agreement(measured: dict[str, Tensor]) -> Agreement:
    """The measurements of `exits`, for the rules in `vistrim.core.routing`: ``[items, layers - 1]``."""
    return Agreement(measured["alike"], measured["entropy_full"][:, None], measured["entropy_without"])


def check_ends(tokenizer: Any) -> None:
    """Refuse a tokenizer without an end-of-sequence token.

    Raises
    ------
    ValueError
        If there is none.
    """
    if tokenizer.eos_token is None:
        raise ValueError("the model's tokenizer has no end-of-sequence token: set tokenizer.eos_token")


def teacher_forced(model: Any, processor: Any, items: Sequence[Item]) -> tuple[Any, Tensor]:
    """Prompts followed by their correct answers.

    Returns
    -------
    inputs : BatchFeature
        Arguments of the model's forward pass, padded on both sides.
    labels : Tensor
        ``[batch, tokens]`` long: the answers and their end-of-sequence tokens, -100 elsewhere.
    """
    inputs = format_items(processor, items)
    tokenizer = processor.tokenizer
    check_ends(tokenizer)
    answers = tokenizer([item.answer + tokenizer.eos_token for item in items], add_special_tokens=False)["input_ids"]
    check_context(model, inputs, max(map(len, answers)))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    right = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in answers], True, IGNORED)
    labels = torch.cat([torch.full_like(inputs["input_ids"], IGNORED), right], 1)
    valid = right != IGNORED
    inputs = BatchFeature(with_text_behind(model, inputs, right.where(valid, pad), valid))
    return inputs.to(model.device, dtype=model.dtype), labels.to(model.device)


def _answer(found: TextAlone, labels: Tensor) -> Tensor:
    """``[batch, text]``: the correct next token of each row of the text, or -100."""
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    return following.gather(1, found.text.slots).masked_fill(~found.text.valid, IGNORED)


def _question(found: TextAlone) -> Tensor:
    """``[batch, text]`` bool: the prompt's text after its last image."""
    tokens, text = found.prompt.tokens, found.text
    in_prompt = tokens.valid & (tokens.slots <= found.prompt.ranking[:, None])
    return text_behind_images(tokens.visual, in_prompt).gather(1, text.slots) & text.valid
