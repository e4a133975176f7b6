"""Checks of the values that a method returns, before they are used.

A wrong value rarely raises an error by itself. Counts, masks and indices would refer to different tokens, and the model
would continue with the wrong ones.

Type, dtype, shape and counts do not depend on the contents of tensors and are always checked. Contents are checked at
all cuts of a prefill, in one transfer from the device, because timing the cut synchronizes anyway. Decoding does not
synchronize, so contents are then checked on CPUs only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from vistrim.architectures import ModelSpec
from vistrim.core.selection import Selection
from vistrim.core.structure import LayerStructure
from vistrim.engine.tokens.token_map import TokenMap
from vistrim.errors import MethodError
from vistrim.methods.base.composition import part_at
from vistrim.methods.base.method import Method
from vistrim.methods.base.stage_hooks import STAGES
from vistrim.methods.base.wrong_answers import refuse_answer


def check_description(method: Method) -> None:
    """Refuse a method without a name or valid stages.

    Raises
    ------
    MethodError
        If one of them is missing or wrong. The message names the fix.
    """
    kind, name, stages = type(method).__name__, getattr(method, "name", None), getattr(method, "stages", None)
    if not isinstance(name, str) or not name:
        raise MethodError(f'the method {kind} has no `name`: give its class one, such as name = "mine"')
    if not isinstance(stages, tuple) or not set(stages) <= set(STAGES):
        raise MethodError(
            f"the method {name} ({kind}) has stages={stages!r}: give its class a tuple of some of {', '.join(STAGES)}"
        )


def check_fitted(answer: Any, method: Method) -> None:
    """Refuse a fitted method that is not a `Method`."""
    if not isinstance(answer, Method):
        refuse_answer(method, "fitted", answer, "a Method is expected (itself, if nothing depends on the model)")


def check_cuts(answer: Any, method: Method, depth: int) -> frozenset[int]:
    """Return the layers before which a method cuts, if they are valid."""
    known = isinstance(answer, Iterable) and not isinstance(answer, Tensor)
    layers = list(answer) if known else []
    if not known or not all(type(n) is int and 0 < n < depth for n in layers) or len(set(layers)) < len(layers):
        refuse_answer(
            part_at(method, "prefill"),
            "prefill_layers",
            answer,
            f"a tuple of distinct layers from 1 to {depth - 1} is expected",
        )
    return frozenset(layers)


def check_structure(answer: Any, method: Method, spec: ModelSpec) -> None:
    """Refuse a structure that is neither None nor one `LayerStructure` per layer."""
    fits = isinstance(answer, tuple) and all(isinstance(cut, LayerStructure) for cut in answer)
    if answer is not None and not (fits and len(answer) == len(spec.layers)):
        expected = f"None or a tuple with a LayerStructure for each of the {len(spec.layers)} layers is expected"
        refuse_answer(part_at(method, "structure"), "structure", answer, expected)


def check_scores(answer: Any, method: Method, tokens: TokenMap) -> Tensor:
    """Return the scores ``[batch, tokens]`` of a cut, if they are valid."""
    if not isinstance(answer, Tensor) or not answer.is_floating_point() or answer.shape != tokens.visual.shape:
        expected = f"scores are a float tensor {list(tokens.visual.shape)}"
        refuse_answer(part_at(method, "prefill"), "score", answer, expected)
    return answer


def check_query_rows(answer: Any, method: Method, tokens: TokenMap, prompt: Tensor) -> Tensor | None:
    """Return the ranking rows ``[batch, tokens]`` bool, if they are text of the prompt."""
    if answer is None:
        return None
    part, name = part_at(method, "prefill"), "query_rows"
    if not isinstance(answer, Tensor) or answer.dtype != torch.bool or answer.shape != prompt.shape:
        refuse_answer(part, name, answer, f"None or a bool tensor {list(prompt.shape)} is expected")
    if (answer & ~(prompt & ~tokens.visual)).any():
        refuse_answer(part, name, answer, "only text of the prompt can rank: visual tokens and padding may be removed")
    return answer


def check_counts(answer: Any, method: Method, samples: int) -> Sequence[int] | None:
    """Return the number of visual tokens per sample that a cache may hold, if it is valid."""
    if answer is None:
        return None
    if not isinstance(answer, (tuple, list)) or len(answer) != samples or not all(_is_count(n) for n in answer):
        expected = f"None or a tuple of {samples} numbers of tokens, one per sample, is expected"
        refuse_answer(part_at(method, "decode"), "decode_counts", answer, expected)
    return answer


def check_selection(
    answer: Any, method: Method, stage: str, tokens: TokenMap, hidden: Tensor, in_prefill: bool
) -> Selection | None:
    """Return the selection of a method, if it is valid.

    Parameters
    ----------
    answer : object
        Return value of ``select_<stage>``.
    method : Method
        The method.
    stage : {"input", "prefill"}
        Stage of the selection.
    tokens : TokenMap
        The tokens to select from.
    hidden : Tensor
        ``[batch, tokens, hidden]`` of these tokens.
    in_prefill : bool
        Whether the prefill is being timed, so that the device is synchronized anyway.

    Raises
    ------
    MethodError
        If it is not a valid selection of these tokens.
    """
    if answer is None:
        return None
    problem = _problem(answer, tokens, tuple(hidden.shape), None)
    if problem is None and (in_prefill or tokens.visual.device.type == "cpu"):
        problem = _wrong_content(answer, tokens)
    if problem is not None:
        refuse_answer(part_at(method, stage), f"select_{stage}", answer, problem)
    return answer


def check_eviction(answer: Any, method: Method, counts: Sequence[int], tokens: TokenMap) -> Selection:
    """Return the selection of ``counts`` tokens per sample in a cache, if it is valid.

    Raises
    ------
    MethodError
        If it is not a valid selection of this number of tokens.
    """
    problem = _problem(answer, tokens, (), tuple(counts))
    if problem is None and tokens.visual.device.type == "cpu":
        problem = _wrong_content(answer, tokens)
    if problem is not None:
        refuse_answer(part_at(method, "decode"), "select_decode", answer, problem)
    return answer


def _is_count(n: Any) -> bool:
    return isinstance(n, int) and n >= 0


def _problem(answer: Any, tokens: TokenMap, hidden: tuple[int, ...], asked: tuple[int, ...] | None) -> str | None:
    """Describe the fault of a selection, without reading the contents of its tensors. None: no fault found."""
    if not isinstance(answer, Selection):
        return "a Selection is expected" if asked is not None else "a Selection, or None to keep all, is expected"
    visual = tokens.visual
    parts = {"keep": torch.bool, "merge_into": torch.long, "behind": torch.long, "replaced": torch.bool}
    for name, dtype in parts.items():
        part = getattr(answer, name)
        if part is None and name != "keep":
            continue
        if not isinstance(part, Tensor) or part.dtype != dtype or part.shape != visual.shape:
            return f"{name} has to be a tensor {list(visual.shape)} of {dtype}"
        if part.device != visual.device:
            return f"{name} has to be on {visual.device}, where the tokens are"
        if asked is not None and name != "keep":
            return f"tokens of a cache can only be kept or removed: leave {name} out"
    if answer.hidden is not None and asked is not None:
        return "tokens of a cache can only be kept or removed: leave hidden out"
    new = answer.hidden
    if new is not None and not (isinstance(new, Tensor) and new.is_floating_point() and tuple(new.shape) == hidden):
        return f"hidden has to be a float tensor {list(hidden)}"
    counts, held = answer.counts, tokens.n_visual
    if not isinstance(counts, tuple) or len(counts) != len(held) or not all(map(_is_count, counts)):
        return f"counts has to be a tuple of {len(held)} numbers of tokens, one per sample"
    if any(n > most for n, most in zip(counts, held, strict=True)):
        return f"counts has more than the {list(held)} visual tokens of the samples"
    if asked is not None and counts != asked:
        return f"counts has to be the requested {list(asked)}"
    return None


def _wrong_content(selection: Selection, tokens: TokenMap) -> str | None:
    """Describe a fault in the contents of a selection's tensors. Synchronizes once."""
    kept = selection.keep & tokens.visual
    counts = torch.tensor(selection.counts, device=kept.device)
    checks = {"keep does not have the numbers of visual tokens in counts": (kept.sum(1) == counts).all()}
    if selection.merge_into is not None:
        into, last = selection.merge_into, kept.shape[1] - 1
        merges = into >= 0
        fits = kept.gather(1, into.clamp(0, last)) & tokens.visual & ~kept
        checks["merge_into has rows that do not exist"] = ((into >= -1) & (into <= last)).all()
        checks["merge_into may only merge removed visual tokens into kept ones"] = (~merges | fits).all()
    if selection.behind is not None:
        behind, last = selection.behind, kept.shape[1] - 1
        checks["behind has tokens that are not kept visual tokens"] = (kept | (behind < 0)).all()
        checks["behind has rows that do not exist"] = ((behind >= -1) & (behind <= last)).all()
    if selection.replaced is not None:
        checks["replaced has tokens that are not kept visual tokens"] = (kept | ~selection.replaced).all()
    right = torch.stack(list(checks.values())).tolist()
    return next((problem for problem, fine in zip(checks, right, strict=True) if not fine), None)
