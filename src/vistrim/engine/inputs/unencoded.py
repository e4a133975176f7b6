"""A prompt as the processor returns it, read without running the model."""

from collections.abc import Mapping
from typing import Any

from vistrim.architectures import ModelSpec
from vistrim.engine.inputs.encodings import merged_shapes
from vistrim.engine.inputs.prompt import Prompt, PromptInputs, read_prompt
from vistrim.engine.inputs.prompt_ends import Border


def read_unencoded(spec: ModelSpec, inputs: Mapping[str, Any]) -> Prompt:
    """Read a batch of prompts without encoding its images.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    inputs : mapping
        Output of the processor.

    Returns
    -------
    Prompt
        On the CPU. Without images, it has no visual tokens.
    """
    ids = inputs["input_ids"].cpu()
    mask = inputs.get("attention_mask")
    shapes = merged_shapes(spec, ids, inputs)
    prompt_inputs = PromptInputs(
        placeholders={modality: ids == spec.visual_token_ids[modality] for modality in shapes},
        shapes={},
        padding_mask=None if mask is None else mask.bool().cpu(),
        border=Border.in_generate({}, False),
        stays={m: inputs[name].bool() for m, name in spec.images.stays.items() if inputs.get(name) is not None},
        ids=ids,
    ).with_shapes(shapes)
    return read_prompt(prompt_inputs, len(ids), 0, ids.shape[1], ids.device)
