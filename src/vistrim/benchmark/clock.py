"""Times of one generation, phase by phase."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from vistrim.engine import ModelSpec
from vistrim.engine.hooks import Hooks
from vistrim.engine.report.timing import clock
from vistrim.errors import BenchmarkError


@dataclass(frozen=True)
class Times:
    """Seconds of one generation.

    Attributes
    ----------
    encode : float
        Vision tower and projector; 0 in a model that has no method of its own for them (``get_image_features``,
        ``get_video_features``), whose encoding is then part of the prefill.
    first_token : float
        From the call of ``generate`` to its first token.
    steps : list of float
        Each later token.
    """

    encode: float
    first_token: float
    steps: list[float]


def time_generation(
    model: Any, spec: ModelSpec, inputs: Mapping[str, Any], new_tokens: int, devices: Sequence[torch.device]
) -> Times:
    """Generate greedily and tell how long each phase took.

    Parameters
    ----------
    model : PreTrainedModel
        Trimmed or not.
    spec : ModelSpec
        What `vistrim.engine.describe` found in it.
    inputs : mapping
        Arguments of ``generate``.
    new_tokens : int
        Tokens per sample, no more and no less.
    devices : sequence of torch.device
        What is waited for at every mark.

    Returns
    -------
    Times
        The marks: the call itself; the encoding, from its begin to its end; and each token, once it was chosen.

    Raises
    ------
    BenchmarkError
        If the model generates another number of tokens.

    Notes
    -----
    At every mark the devices are waited for. ``generate`` does so itself after each token, except on Apple's
    accelerators, where a step takes a little longer here than it would otherwise. Except on a single CUDA device, the
    engine waits around every cut in prefill, too, which counts against the method.
    """
    marks = _Marks(devices)
    hooks = Hooks()
    try:
        # On top of what the engine has put there, whose work on the images counts as encoding.
        for modality in spec.visual_token_ids:
            name = f"get_{modality}_features"
            if hasattr(spec.base, name):
                hooks.shadow(spec.base, name, marks.around(getattr(spec.base, name)))
        began = clock(*devices)
        model.generate(
            **inputs,
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            stopping_criteria=[marks.note_token],
        )
    finally:
        hooks.remove()
    if len(marks.tokens) != new_tokens:
        raise BenchmarkError(
            f"the model generated {len(marks.tokens)} tokens instead of {new_tokens}: its generation config ends "
            "answers in another way, such as max_time or forced tokens; take that out of model.generation_config"
        )
    first, *_ = marks.tokens
    return Times(marks.encoding, first - began, [later - earlier for earlier, later in pairwise(marks.tokens)])


@dataclass
class _Marks:
    """Moments of one generation."""

    devices: Sequence[torch.device]
    encoding: float = 0.0
    tokens: list[float] = field(default_factory=list)
    _inside: bool = False

    def note_token(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Note that a token was chosen: a stopping criterion that never stops."""
        self.tokens.append(clock(*self.devices))
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    def around(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """Note how long an encoder works."""

        # `generate` reads from the signature what to give to it.
        @functools.wraps(encode)
        def timed(*args: Any, **kwargs: Any) -> Any:
            # The encoder of videos may call that of images.
            if self._inside:
                return encode(*args, **kwargs)
            self._inside = True
            began = clock(*self.devices)
            output = encode(*args, **kwargs)
            self.encoding += clock(*self.devices) - began
            self._inside = False
            return output

        return timed
