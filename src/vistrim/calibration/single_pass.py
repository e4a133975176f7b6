"""What calibrations that watch a single forward pass begin with: an untouched model, and the prompts it is given."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vistrim.engine import ModelSpec, describe
from vistrim.engine.attention import interception
from vistrim.engine.hooks import Call
from vistrim.engine.inputs.prompt import Prompt, read_inputs, read_prompt
from vistrim.engine.inputs.prompt_ends import Border
from vistrim.errors import UnsupportedModelError


def untrimmed(model: Any) -> ModelSpec:
    """Take a model apart that is not being trimmed.

    Raises
    ------
    UnsupportedModelError
        If the model is not supported, or is being trimmed.
    """
    spec = describe(model)
    if interception.is_installed(spec.attentions[0]):
        raise UnsupportedModelError("this model is being trimmed: leave that context first")
    return spec


def without_labels(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a forward pass, without the labels that some processors make for trainers."""
    return {name: value for name, value in inputs.items() if name != "labels"}


def read_call(spec: ModelSpec, call: Call, labels: Tensor | None = None) -> Prompt:
    """Read the prompts off a call of the base model.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    call : dict
        Arguments of the base model's forward pass by name, without earlier turns.
    labels : Tensor, optional
        ``[batch, tokens]`` long: right answers behind the prompts, -100 elsewhere.

    Raises
    ------
    ValueError
        If there are no token ids.
    """
    ids = call.get("input_ids")
    if ids is None:
        raise ValueError("the prompts have no `input_ids`: give what the processor returns")
    found = read_inputs(spec, call, Border(labels=labels))
    return read_prompt(found, ids.shape[0], past=0, length=ids.shape[1], device=ids.device)
