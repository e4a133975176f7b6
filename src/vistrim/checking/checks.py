"""``vistrim.check``: verify trimming on one model against the untouched model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from vistrim._utils.environment import stamp
from vistrim.benchmark.keep_everything import KeepEverything
from vistrim.checking.defaults import NEW_TOKENS, PROMPT
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

EXAMPLE = Path(__file__).with_name("example.png")
"""A scene drawn by `vistrim.reference`."""

BEFORE_DECODER = (FasterVLM(keep=0.5, positions="original"), Uniform(keep=0.5))
"""Methods before the decoder; the first one that the model supports is checked."""
IN_PREFILL = PVTP()
WHILE_DECODING = ST3(decay="linear", horizon=2 * NEW_TOKENS, floor=0.1, interval=1)

Progress = Callable[[str], None]
"""Called with the title of each check before it starts."""


def check(
    model: Any,
    processor: Any,
    *,
    image: Image.Image | None = None,
    prompt: str = PROMPT,
    new_tokens: int = NEW_TOKENS,
    progress: Progress | None = None,
) -> CheckReport:
    """Verify that trimming is computed correctly on a model.

    The checks compare a method that keeps everything with the untouched model, bit by bit; three methods with the
    masked reference, the untouched model at full length with the removed tokens hidden by the attention mask; a padded
    batch with each of its samples; and the bytes of the KV cache with the plan. They also measure the speed-up and its
    bound, and verify that the model is restored afterwards.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        A multimodal model for generation, in evaluation mode, not being trimmed.
    processor : ProcessorMixin
        Its processor, as `vistrim.load` returns it.
    image : PIL.Image.Image, optional
        Image of the prompt; a drawn example by default.
    prompt : str
        Question about the image.
    new_tokens : int
        Tokens of each answer, at least 2.
    progress : callable, optional
        Called with the title of each check before it starts.

    Returns
    -------
    CheckReport
        ``report.passed`` is True if no check failed. Printing the report shows all results.

    Raises
    ------
    UnsupportedModelError
        If the model is not supported.
    PromptError
        If the model cannot process the prompt.
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
    # Raises for a model that is not supported, or is being trimmed.
    with trim(model, KeepEverything()):
        pass
    shown = Image.open(EXAMPLE).convert("RGB") if image is None else image
    subject = Subject(model, describe(model), processor, shown, prompt, new_tokens)
    # transformers installs hooks of its own in the first forward pass.
    _ = subject.untouched
    before = state_of(model)
    again = subject.generate(subject.inputs)
    # Ignore state that the untouched model itself changes.
    before = {key: value for key, value in state_of(model).items() if before.get(key) == value}
    checks: dict[tuple[str, str], Callable[[], tuple[Status, str, dict[str, Any]]]] = {
        ("keep_everything", "keeping every token is bit-identical"): lambda: check_keep_everything(subject, again),
        ("before_decoder", "tokens removed before the decoder are gone"): lambda: _first_possible(subject),
        ("prefill", "tokens removed in prefill are gone"): lambda: check_removal(subject, IN_PREFILL),
        ("decode", "tokens evicted while decoding are gone"): lambda: check_removal(subject, WHILE_DECODING),
        ("padded_batch", "a padded batch equals its samples alone"): lambda: check_batch(subject, WHILE_DECODING),
        ("kv_bytes", "the KV cache holds exactly the planned bytes"): lambda: check_bytes(
            subject, (*BEFORE_DECODER, IN_PREFILL, WHILE_DECODING)
        ),
        ("speed", "speed-up and its bound"): lambda: check_speed(subject),
        ("restored", "the model is restored"): lambda: check_restored(subject, before),
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
    # A method that reads the vision tower or, if that is not possible, one that does not.
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
    # Any error of a check is its result; the other checks still run.
    except Exception as error:
        status, detail, figures = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}", {}
    return Outcome(name, title, status, detail, figures)
