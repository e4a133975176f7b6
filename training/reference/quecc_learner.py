"""Training of QueCC: a reference model with each image compressed separately for each question."""

from __future__ import annotations

import torch
from torch import nn

from training.reference.batches import IGNORED, Batch
from training.reference.learner import Learner
from vistrim.core.compressor import Compressor, CompressorShape, recorded_blocks
from vistrim.reference.processing import GRID

#: Offset at which GELU is the identity for inputs of unit scale.
_PASSING = 3.0


class CompressedLearner(nn.Module):
    """A learner and a compressor.

    Parameters
    ----------
    learner : Learner
        The reference model and its losses.
    tokens : int
        Tokens per image, a square number whose root divides the side of the grid.

    Raises
    ------
    ValueError
        If the grid cannot be compressed to this number of tokens.
    """

    def __init__(self, learner: Learner, tokens: int) -> None:
        super().__init__()
        self.learner = learner
        config = learner.model.config
        self.blocks = recorded_blocks(config.vision_config.num_hidden_layers)
        width = config.vision_config.hidden_size
        self.compressor = Compressor(
            CompressorShape(
                grid=(GRID, GRID),
                stride=stride_for(tokens),
                width=width,
                states=width * len(self.blocks),
                hidden=config.text_config.hidden_size,
            )
        )

    @torch.no_grad()
    def start_as_pooling(self, pixels: torch.Tensor) -> None:
        """Initialize the compressor close to a mean over the patches of each block, followed by the model's projector.

        Values are initialized to the features of the last recorded block. Queries and keys are not changed. The decoder
        then understands the tokens from the first step on. A random initialization costs hundreds of steps.

        Parameters
        ----------
        pixels : torch.Tensor
            ``(B, 3, 144, 144)``: images from which the scale of the features is measured.
        """
        features, _ = self._see(pixels)
        mean, scale = features.mean().item(), features.std().item()
        compressor, width = self.compressor, features.shape[-1]
        same = torch.eye(width)
        value = compressor.value.state_dict()
        # For large inputs, GELU is the identity.
        value["0.weight"].zero_()[:, -width:] = same / scale
        value["0.bias"].fill_(_PASSING - mean / scale)
        value["2.weight"].copy_(same)
        value["2.bias"].fill_(-_PASSING)
        attention = compressor.attention
        attention.in_proj_weight[-width:] = same
        attention.out_proj.weight.copy_(same * scale)
        attention.out_proj.bias.fill_(mean)
        stock = self.learner.model.model.multi_modal_projector
        compressor.projector[0].load_state_dict(stock.linear_1.state_dict())
        compressor.projector[2].load_state_dict(stock.linear_2.state_dict())

    def answer_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses of `Learner.answer_loss` with separate visual tokens per question.

        A row of the batch is one image: the prefix of the prompt, the visual tokens of each question, and the packed
        questions. Each question attends only to its own tokens and itself, at the positions that it would have alone.
        """
        assert batch.pixels is not None
        with torch.no_grad():
            features, states = self._see(batch.pixels)
            questions = self._questions(batch)
        tokens = self.compressor(features, states, questions)
        rows, asked = tokens.shape[:2]
        embed = self.learner.model.get_input_embeddings()
        prefix = embed(self.learner.prefix_ids).expand(rows, asked, -1, -1)
        seen = torch.cat([prefix, tokens], 2)
        lead = seen.shape[2]
        numbers = torch.arange(1, asked + 1, device=tokens.device).repeat_interleave(lead).expand(rows, -1)
        places = torch.arange(lead, device=tokens.device).repeat(asked).expand(rows, -1)
        hidden = self._decode(
            torch.cat([seen.flatten(1, 2), embed(batch.tokens)], 1),
            torch.cat([places, lead + batch.offsets], 1),
            torch.cat([numbers, batch.segments], 1),
        )
        return self.learner.text_losses(hidden[:, asked * lead :], batch)

    def _see(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Patch features and concatenated hidden states of images, as the engine records them."""
        states = self.learner.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        patches = [state[:, 1:] for state in states]
        return patches[-1], torch.cat([patches[block + 1] for block in self.blocks], -1)

    def _questions(self, batch: Batch) -> torch.Tensor:
        """Last hidden state of each question's prompt without an image, ``(B, questions, width)``."""
        embed = self.learner.model.get_input_embeddings()
        hidden = self._decode(embed(batch.tokens), batch.offsets, batch.segments)
        asked = torch.arange(1, int(batch.segments.max()) + 1, device=hidden.device)
        answered = (batch.segments == asked[:, None, None]) & (batch.labels != IGNORED)
        # The first label is at the last token of the prompt. Images with fewer questions get unused ones.
        last = answered.to(torch.uint8).argmax(-1).T
        return hidden.gather(1, last[..., None].expand(-1, -1, hidden.shape[-1]))

    def _decode(self, embeddings: torch.Tensor, positions: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        """Decoder output ``(B, S, width)`` with causal attention within each segment."""
        length = segments.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
        same = segments[:, :, None] == segments[:, None, :]
        return self.learner.model.model.language_model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=(causal & same)[:, None],
            use_cache=False,
        ).last_hidden_state


def stride_for(tokens: int) -> int:
    """Return the side of the block of patches of each of ``tokens`` tokens.

    Raises
    ------
    ValueError
        If the grid cannot be compressed to so many tokens.
    """
    possible = {(GRID // stride) ** 2: stride for stride in range(2, GRID + 1) if GRID % stride == 0}
    if tokens not in possible:
        raise ValueError(f"tokens={tokens}: must be one of {', '.join(map(str, sorted(possible)))}")
    return possible[tokens]
