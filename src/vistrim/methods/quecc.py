"""QueCC: each image is compressed to a few tokens, conditioned on the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from vistrim.core.compressor import Compressor, CompressorShape, token_places
from vistrim.core.model_facts import ModelFacts
from vistrim.core.selection import Selection
from vistrim.errors import UnsupportedModelError
from vistrim.methods.base.artifacts import TrainedPart, load_part
from vistrim.methods.base.checks import check_positions
from vistrim.methods.base.method import Method, Positions
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import InputTokens

TRAINING = "`python -m training.reference.train_quecc --tokens 16 --export-to DIR` in the source tree of vistrim"
"""Training code is not installed."""


@register
@dataclass(frozen=True)
class QueCC(Method):
    r"""Replace the tokens of each image by a few tokens from a trained compressor, conditioned on the question.

    The question is the prompt text after the sample's last image, or all of its text if there is none after it. The
    language model processes it alone, without images. The last hidden state of its last token is the question
    embedding. From the embedding and the hidden states of the vision tower, `vistrim.core.compressor.Compressor`
    computes one token per block of ``stride x stride`` patches. The trained compressor determines the stride. The token
    takes the place of the last patch of its block. All images of a sample are compressed for the same question.

    Parameters
    ----------
    compressor : str or None
        File of the trained compressor. None: ``vistrim/quecc.safetensors`` in the model's folder.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive, as in training, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range. When the method is applied to a model, if there is no compressor for it.

    Notes
    -----
    Source: arXiv 2411.03312 (ICLR 2025), github.com/locuslab/llava-token-compression at bdedebd. Deviations: the
    released code needs a fixed width of 4096 and one image, and cannot run inference. Here all sizes come from the
    trained compressor, and all generation modes work. There the question is the text of the first turn only, tokenized
    again. Here it consists of the prompt's tokens up to the beginning of the answer. The projector of the model still
    runs on all patches although its output is replaced, so its cost equals that of the untouched model.
    """

    name = "quecc"
    summary = "Replaces the tokens of each image by a few from a trained compressor, conditioned on the question"
    stages = ("input",)
    needs = "a trained compressor, and a model tuned with it"
    kv_cache = "small in every layer"
    source = "QueCC, arXiv 2411.03312"
    ranks_by = "nothing"
    reads_question = True
    reads_vision = True

    unbudgeted = "its compressor makes a fixed number of tokens: use one trained for another number"

    compressor: str | None = None
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        check_positions(self.positions)

    def fitted(self, model: ModelFacts) -> FittedQueCC:
        """Load the trained compressor."""
        part = load_part(self.compressor, self.name, model, TRAINING)
        try:
            shape = CompressorShape.read(part.settings)
            _network(part, shape, torch.device("cpu"), torch.float32)
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"the file of the compressor is damaged ({error}): train it again with {TRAINING}"
            ) from error
        if shape.grid != model.grid:
            own = "no fixed number" if model.grid is None else "{} x {}".format(*model.grid)
            raise ValueError(
                f"the compressor was trained for images of {shape.grid[0]} x {shape.grid[1]} patches, but images of "
                f"this model have {own}: train one for it with {TRAINING}"
            )
        return FittedQueCC(self.compressor, self.positions, part=part, shape=shape)


@dataclass(frozen=True)
class FittedQueCC(QueCC):
    """`QueCC` with the compressor of a model.

    Parameters
    ----------
    part : TrainedPart
        Weights of the compressor.
    shape : CompressorShape
        Sizes of the compressor.
    """

    name = QueCC.name

    part: TrainedPart = field(kw_only=True, repr=False)
    shape: CompressorShape = field(kw_only=True)

    def own_flops(self, model: ModelFacts, visual_per_layer: Sequence[int]) -> int:
        """Count the FLOPs of compressing the sample's images. The engine adds those of reading the question."""
        return -(-visual_per_layer[0] // self.shape.tokens) * self.shape.flops

    def vision_states(self, feature_block: int) -> tuple[int, ...]:
        """Return the blocks whose outputs are used for keys and values."""
        return tuple(map(int, self.part.settings["blocks"].split("/")))

    def select_input(self, tokens: InputTokens) -> Selection:
        """Put the compressed tokens of each image in the place of some of its patches."""
        assert tokens.vision is not None
        assert tokens.question is not None
        device, patches = tokens.visual.device, self.shape.patches
        source = tokens.vision.source
        if int((source >= 0).sum()) != patches * sum(map(len, tokens.images)):
            raise UnsupportedModelError(
                f"the compressor was trained for images of {patches} visual tokens, but these have a different number: "
                "set model.config.vision_feature_select_strategy as in training"
            )
        # If the prompt ends with a visual token, which must stay, it is one of them too.
        taken = (source >= 0) & token_places(self.shape).to(device)[source % patches]
        places = taken.nonzero().view(-1, self.shape.tokens, 2)
        sample, image = places[:, 0, 0], source[places[:, 0, 0], places[:, 0, 1]] // patches
        network = _network(self.part, self.shape, tokens.embeddings.device, tokens.embeddings.dtype)

        def of_image(features: Tensor) -> Tensor:
            return features.view(-1, patches, features.shape[-1])[image].to(tokens.embeddings)

        states = torch.cat([tokens.vision.states[block] for block in sorted(tokens.vision.states)], -1)
        with torch.no_grad():
            made = network(of_image(tokens.vision.features), of_image(states), tokens.question[sample][:, None])
        hidden = torch.zeros_like(tokens.embeddings)
        # Under autocast the output of the network has a different dtype than the embeddings.
        hidden[taken] = made.flatten(0, 2).to(hidden.dtype)
        counts = (taken & tokens.visual).sum(1).tolist()
        return Selection(taken, tuple(counts), renumber=self.renumbers, hidden=hidden)


@lru_cache(maxsize=4)
def _network(part: TrainedPart, shape: CompressorShape, device: torch.device, dtype: torch.dtype) -> Compressor:
    with torch.device("meta"):
        network = Compressor(shape)
    network.load_state_dict(part.tensors, assign=True)
    return network.to(device, dtype).requires_grad_(False).eval()
