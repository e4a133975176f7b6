"""QueCC: each image as a few tokens, made for the question that is asked about it."""

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
from vistrim.methods.base.method import Method, Positions, check_positions
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import InputTokens

COMMAND = "python -m training.reference.train_quecc --tokens 16 --export-to DIR"


@register
@dataclass(frozen=True)
class QueCC(Method):
    r"""Replace the tokens of each image by the few that a trained compressor makes of them for the question.

    The question is the prompt's text behind the sample's last image (all of its text, where there is none behind). The
    language model reads it alone, without an image, and its last hidden state at the last token is the question
    embedding. `vistrim.core.compressor.Compressor` turns it and the vision tower's hidden states into one token for
    each block of ``stride x stride`` patches; the trained part fixes the stride. The token takes the place of its
    block's last patch. Of several images each is compressed for the same question.

    Parameters
    ----------
    compressor : str or None
        File of the trained part; None: ``vistrim/quecc.safetensors`` in the model's folder.
    positions : {"renumber", "original"}
        RoPE positions of the tokens that are left: consecutive, as in a prompt that has only so many image tokens,
        which is what the model was trained with; or each its own.

    Raises
    ------
    ValueError
        If a parameter is out of range; on a model, if there is no trained part for it.

    Notes
    -----
    Source: arXiv 2411.03312 (ICLR 2025), github.com/locuslab/llava-token-compression at bdedebd. Deviations: the
    released code needs a fixed width of 4096 and one image, and cannot run inference; here all sizes come from the
    trained part, and every way to generate works. There the question is the text of the first turn only, tokenised
    again; here it is read from the tokens of the prompt as they are, up to where the answer begins. The model's own
    projector still runs on all patches, although its output is replaced: its cost is that of the untrimmed model.
    """

    name = "quecc"
    summary = "Replaces each image's tokens by a few that a trained compressor makes for the question"
    stages = ("input",)
    needs = "a trained compressor, and a model tuned with it"
    kv_cache = "small in every layer"
    source = "QueCC, arXiv 2411.03312"
    ranks_by = "nothing"
    reads_question = True
    reads_vision = True

    compressor: str | None = None
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        check_positions(self.positions)

    def fitted(self, model: ModelFacts) -> FittedQueCC:
        """With the trained part loaded."""
        part = load_part(self.compressor, self.name, model, COMMAND)
        try:
            shape = CompressorShape.read(part.settings)
            _network(part, shape, torch.device("cpu"), torch.float32)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"the compressor's file is damaged ({error}): make it again with `{COMMAND}`") from error
        if shape.grid != model.grid:
            own = "no fixed number" if model.grid is None else "{} x {}".format(*model.grid)
            raise ValueError(
                f"the compressor was trained for images of {shape.grid[0]} x {shape.grid[1]} patches, and this model's "
                f"have {own}: train one for it with `{COMMAND}`"
            )
        return FittedQueCC(self.compressor, self.positions, part=part, shape=shape)


@dataclass(frozen=True)
class FittedQueCC(QueCC):
    """`QueCC` on a model.

    Parameters
    ----------
    part : TrainedPart
        The compressor's weights.
    shape : CompressorShape
        Its sizes.
    """

    name = QueCC.name

    part: TrainedPart = field(kw_only=True, repr=False)
    shape: CompressorShape = field(kw_only=True)

    def own_flops(self, model: ModelFacts, visual_per_layer: Sequence[int]) -> int:
        """Of compressing the sample's images; the engine adds what reading the question takes."""
        return -(-visual_per_layer[0] // self.shape.tokens) * self.shape.flops

    def vision_states(self, feature_block: int) -> tuple[int, ...]:
        """The blocks that keys and values are made of."""
        return tuple(map(int, self.part.settings["blocks"].split("/")))

    def select_input(self, tokens: InputTokens) -> Selection:
        """Put each image's compressed tokens in the places of some of its patches."""
        assert tokens.vision is not None
        assert tokens.question is not None
        device, patches = tokens.visual.device, self.shape.patches
        source = tokens.vision.source
        if int((source >= 0).sum()) != patches * sum(map(len, tokens.images)):
            raise UnsupportedModelError(
                f"the compressor was trained for images of {patches} visual tokens, and these have others: set "
                "model.config.vision_feature_select_strategy as it was in training"
            )
        # A last token that has to stay, as the prompt ends with it, is one of them too.
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
        # Under autocast the network's output has another dtype than the embeddings.
        hidden[taken] = made.flatten(0, 2).to(hidden.dtype)
        counts = (taken & tokens.visual).sum(1).tolist()
        return Selection(taken, tuple(counts), renumber=self.renumbers, hidden=hidden)


@lru_cache(maxsize=4)
def _network(part: TrainedPart, shape: CompressorShape, device: torch.device, dtype: torch.dtype) -> Compressor:
    with torch.device("meta"):
        network = Compressor(shape)
    network.load_state_dict(part.tensors, assign=True)
    return network.to(device, dtype).requires_grad_(False).eval()
