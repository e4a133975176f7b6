"""Proof on one model: what trimming computes there, against the untouched model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from vistrim._utils.environment import stamp
from vistrim.benchmark.keep_everything import KeepEverything
from vistrim.checking.exactness import check_batch, check_bytes, check_keep_everything, check_removal, check_restored
from vistrim.checking.restoring import state_of
from vistrim.checking.results import CheckReport, Outcome, Status
from vistrim.checking.speed import check_speed
from vistrim.checking.subject import NotPossibleError, Subject
from vistrim.engine import describe
from vistrim.engine.wrappers import without_adapter
from vistrim.errors import UnsupportedGenerationError
from vistrim.methods import PVTP, ST3, FasterVLM, Uniform
from vistrim.trimming import trim

NEW_TOKENS = 8
PROMPT = "Describe the image."
EXAMPLE = Path(__file__).with_name("example.png")
"""A scene that `vistrim.reference` has drawn."""

BEFORE_DECODER = (FasterVLM(keep=0.5, positions="original"), Uniform(keep=0.5))
"""The first that a model's tower allows."""
IN_PREFILL = PVTP()
WHILE_DECODING = ST3(decay="linear", horizon=2 * NEW_TOKENS, floor=0.1)

Progress = Callable[[str], None]
"""Told the title of each check before it begins."""


def check(
    model: Any,
    processor: Any,
    *,
    image: Image.Image | None = None,
    prompt: str = PROMPT,
    new_tokens: int = NEW_TOKENS,
    progress: Progress | None = None,
) -> CheckReport:
    """Prove on a model that trimming computes what it should.

    Keep-everything against the untouched model, bit by bit; three methods against the untouched model with the removed
    tokens hidden by the attention mask; a padded batch against each of its samples; the bytes of the cache against the
    plan; the speed-up next to its bound; and that nothing is left on the model afterwards.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        A multimodal model for generation, in evaluation mode, not being trimmed.
    processor : ProcessorMixin
        Its processor, as `vistrim.load` returns it.
    image : PIL.Image.Image, optional
        What is asked about; a drawn example by default.
    prompt : str
        What is asked.
    new_tokens : int
        Tokens of each answer, at least 2.
    progress : callable, optional
        Told the title of each check before it begins.

    Returns
    -------
    CheckReport
        Its ``passed`` says whether no check has failed; printed, it is a page.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be trimmed at all.
    PromptError
        If the prompt cannot be given to the model.
    ValueError
        If the model is in training mode, or ``new_tokens`` is below 2.

    Examples
    --------
    >>> model, processor = vistrim.load("reference")
    >>> print(vistrim.check(model, processor))
    """
    if new_tokens < 2:
        raise ValueError(f"new_tokens={new_tokens}: must be at least 2, so that there is a decoding step")
    model = without_adapter(model)
    if model.training:
        raise ValueError("the model is in training mode, in which dropout changes its answers: call model.eval()")
    # A model that is refused altogether, or is being trimmed already, says so here.
    with trim(model, KeepEverything()):
        pass
    shown = Image.open(EXAMPLE).convert("RGB") if image is None else image
    subject = Subject(model, describe(model), processor, shown, prompt, new_tokens)
    # transformers installs hooks of its own in the first forward pass.
    _ = subject.untouched
    before = state_of(model)
    again = subject.generate(subject.inputs)
    # What the untouched model changes on itself does not count.
    before = {key: value for key, value in state_of(model).items() if before.get(key) == value}
    checks: dict[tuple[str, str], Callable[[], tuple[Status, str, dict[str, Any]]]] = {
        ("keep_everything", "keeping every token changes no bit"): lambda: check_keep_everything(subject, again),
        ("before_decoder", "tokens removed before the decoder are gone"): lambda: _first_possible(subject),
        ("prefill", "tokens removed in prefill are gone"): lambda: check_removal(subject, IN_PREFILL),
        ("decode", "tokens evicted while decoding are gone"): lambda: check_removal(subject, WHILE_DECODING),
        ("padded_batch", "a padded batch is what its samples are alone"): lambda: check_batch(subject, WHILE_DECODING),
        ("kv_bytes", "the cache holds the planned bytes, exactly"): lambda: check_bytes(
            subject, (*BEFORE_DECODER, IN_PREFILL, WHILE_DECODING)
        ),
        ("speed", "speed-up next to its bound"): lambda: check_speed(subject),
        ("restored", "the model is left as it was"): lambda: check_restored(subject, before),
    }
    outcomes = []
    for (name, title), run in checks.items():
        if progress is not None:
            progress(title)
        outcomes.append(_outcome(name, title, run))
    return CheckReport(
        model=subject.spec.name,
        model_type=subject.spec.model_type,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(subject.spec.device),
        attention=subject.spec.decoder.config._attn_implementation,  # type: ignore[union-attr, arg-type]
        prompt_tokens=subject.sample.prompt,
        visual_tokens=len(subject.sample.visual),
        new_tokens=new_tokens,
        outcomes=tuple(outcomes),
        environment=stamp(),
    )


def _first_possible(subject: Subject) -> tuple[Status, str, dict[str, Any]]:
    """A method that reads the vision tower or, where that is not possible, one that does not."""
    by_tower, other = BEFORE_DECODER
    try:
        return check_removal(subject, by_tower)
    except NotPossibleError as error:
        status, detail, figures = check_removal(subject, other)
        return status, f"{detail} ({by_tower.name} not possible here: {error})", figures


def _outcome(name: str, title: str, run: Callable[[], tuple[Status, str, dict[str, Any]]]) -> Outcome:
    try:
        status, detail, figures = run()
    except (NotPossibleError, UnsupportedGenerationError) as error:
        status, detail, figures = "not possible", " ".join(str(error).split()), {}
    # Whatever ends a check is what it has found; the others go on.
    except Exception as error:
        status, detail, figures = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}", {}
    return Outcome(name, title, status, detail, figures)
