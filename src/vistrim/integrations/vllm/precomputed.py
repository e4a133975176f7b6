"""Embeddings of trimmed images for a vLLM without the plug-in, made with transformers."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vistrim.engine import describe
from vistrim.errors import UnsupportedGenerationError, UnsupportedModelError
from vistrim.integrations.vllm.settings import refuse_decoder_stages, refuse_original_positions
from vistrim.methods import Method
from vistrim.methods.base.budgeted import Budgeted
from vistrim.methods.base.notation import as_method
from vistrim.prompting import format_prompts
from vistrim.trimming import trim


@torch.no_grad()
def embeds(model: Any, processor: Any, image: Image.Image, question: str, method: Method | Budgeted | str) -> Tensor:
    """Encode an image and keep the visual tokens that a method keeps for a question.

    A vLLM that was started with ``enable_mm_embeds`` takes the result in place of the image:
    ``{"prompt": text, "multi_modal_data": {"image": embeds(...)[None]}}``.

    Parameters
    ----------
    model : PreTrainedModel
        As returned by `vistrim.load`. The tokens of an image follow each other in the prompt, and positions have one
        axis, as in LLaVA.
    processor : ProcessorMixin
        As returned by `vistrim.load`.
    image : PIL.Image.Image
        The image.
    question : str
        The question, for methods that read it.
    method : Method, Budgeted or str
        A method that acts before the decoder only, or its notation.

    Returns
    -------
    Tensor
        ``[kept, hidden]`` on the CPU, in the dtype of the model.

    Raises
    ------
    UnsupportedGenerationError
        If the method also acts inside the decoder, keeps positions that vLLM does not know, or removes all tokens.
    UnsupportedModelError
        If positions of the model have several axes, or the tokens of the image do not form one run.
    ValueError
        If the notation or a parameter is wrong.
    """
    method = as_method(method)
    refuse_decoder_stages(method)
    refuse_original_positions(method)
    spec = describe(model)
    if spec.rope_axes > 1:
        raise UnsupportedModelError(
            "vLLM computes the positions of this model from the size of the image, which does not fit the remaining "
            "tokens: serve it with `vistrim serve`"
        )
    inputs = format_prompts(processor, [question], [[image]]).to(model.device)
    visual = inputs["input_ids"][0] == spec.visual_token_ids["image"]
    first, tokens = int(visual.to(torch.uint8).argmax()), int(visual.sum())
    if not visual[first : first + tokens].all():
        raise UnsupportedModelError(
            "text stands between the visual tokens of an image in this model, but vLLM takes one tensor per image: "
            "serve it with `vistrim serve`"
        )
    entered: list[Tensor] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        if not entered:
            entered.append(args[0] if args else kwargs["hidden_states"])

    with trim(model, method):
        # Behind the hooks of the engine, so that it sees what they leave.
        hook = spec.layers[0].register_forward_pre_hook(note, with_kwargs=True)
        try:
            model.generate(**inputs, max_new_tokens=1, do_sample=False)
        finally:
            hook.remove()
    rows = entered[0][0]
    kept = len(rows) - (len(visual) - tokens)
    if kept == 0:
        raise UnsupportedGenerationError(f"{method.name} removes the whole image: send the prompt without it")
    return rows[first : first + kept].cpu().clone()
