"""A reference model with auxiliary modules for training, and the losses."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from training.reference.batches import IGNORED, PATCH_FACTS, Batch
from vistrim.reference.processing import BOS, GRID, USER

_PATCHES = GRID * GRID
#: Weight of background patches in the tower loss. They are easy, and three quarters of an image.
_BACKGROUND_WEIGHT = 0.1


class Learner(nn.Module):
    """A model, heads that predict the facts under a patch, and ideal visual tokens.

    An ideal token is the sum of the word embeddings of the facts under a patch, plus a learned position embedding. The
    decoder can be trained on ideal tokens before the tower is trained, and the projector learns to produce them.
    """

    fact_ids: torch.Tensor
    prefix_ids: torch.Tensor

    def __init__(self, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model = model
        tower_width = model.config.vision_config.hidden_size
        width = model.config.text_config.hidden_size
        self.classes = [len(values) + 1 for values in PATCH_FACTS.values()]
        self.patch_head = nn.Linear(tower_width, sum(self.classes))
        self.scene_head = nn.Linear(tower_width, sum(self.classes))
        self.patch_positions = nn.Parameter(torch.randn(_PATCHES, width) * width**-0.5)
        ids = torch.full((len(PATCH_FACTS), max(self.classes)), tokenizer.pad_token_id)
        for i, values in enumerate(PATCH_FACTS.values()):
            ids[i, : len(values) + 1] = torch.tensor(tokenizer.convert_tokens_to_ids(["background", *values]))
        self.register_buffer("fact_ids", ids, persistent=False)
        prefix = torch.tensor(tokenizer.convert_tokens_to_ids([BOS, USER]))
        self.register_buffer("prefix_ids", prefix, persistent=False)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Tower output ``(B, 1 + V, tower width)``, CLS first, which is the input of the projector."""
        # `vision_feature_layer=-1` selects the last hidden state of the stock vision model.
        return self.model.model.vision_tower(pixels).last_hidden_state

    def visual_tokens(self, features: torch.Tensor) -> torch.Tensor:
        """Projected patch features ``(B, V, width)``."""
        return self.model.model.multi_modal_projector(features[:, 1:])

    def ideal_tokens(self, facts: torch.Tensor) -> torch.Tensor:
        """Ideal visual tokens ``(B, V, width)`` for the facts under each patch."""
        return self.model.get_input_embeddings()(self._words(facts)).mean(-2) * 2 + self.patch_positions

    def tower_loss(self, features: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        """Cross entropy of the facts under each patch, and of the facts anywhere in the scene from the CLS token."""
        weights = torch.where(facts[..., 0] > 0, 1.0, _BACKGROUND_WEIGHT)
        logits = self.patch_head(features[:, 1:]).split(self.classes, -1)
        scene = self.scene_head(features[:, 0]).split(self.classes, -1)
        loss = features.new_zeros(())
        for i, (patch_logits, scene_logits) in enumerate(zip(logits, scene, strict=True)):
            each = F.cross_entropy(patch_logits.flatten(0, 1), facts[..., i].flatten(), reduction="none")
            loss = loss + (each * weights.flatten()).sum() / weights.sum()
            present = F.one_hot(facts[..., i], self.classes[i]).amax(1).float()
            loss = loss + 0.2 * F.binary_cross_entropy_with_logits(scene_logits, present)
        return loss

    def patch_accuracy(self, features: torch.Tensor, facts: torch.Tensor) -> dict[str, float]:
        """Share of the patches on shapes with a correctly predicted fact, per attribute."""
        on_shape = facts[..., 0] > 0
        logits = self.patch_head(features[:, 1:]).split(self.classes, -1)
        return {
            name: (logits[i].argmax(-1) == facts[..., i])[on_shape].float().mean().item()
            for i, name in enumerate(PATCH_FACTS)
        }

    def tie_loss(self, tokens: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        """Squared distance of the visual tokens to the ideal ones, relative to their size."""
        target = self.ideal_tokens(facts).detach()
        weights = torch.where(facts[..., 0] > 0, 1.0, _BACKGROUND_WEIGHT)
        distance = ((tokens - target) ** 2).sum(-1) / (target**2).sum(-1).mean()
        return (distance * weights).sum() / weights.sum()

    def answer_loss(
        self, visual: torch.Tensor, places: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cross entropy of the packed answers, and of the facts of the shapes that the questions name.

        Every question attends only to the image and to itself, at the positions that it would have alone. The second
        loss predicts all facts of the named shape at the last word of the question. It trains the model to find the
        shape, which the one-word answers alone teach slowly.

        Parameters
        ----------
        visual : torch.Tensor
            ``(B, V', width)`` visual tokens.
        places : torch.Tensor
            ``(B, V')`` int64, their patches in ascending order: all 144 or a part.
        batch : Batch

        Returns
        -------
        loss, subject_loss : torch.Tensor
            Mean loss over answer tokens, and over named shapes.
        right : torch.Tensor
            ``(B, T)`` bool: label predicted (False where there is none).
        """
        decoder = self.model.model.language_model
        rows = len(batch.tokens)
        prefix = self.prefix_ids.expand(rows, -1)
        embed = self.model.get_input_embeddings()
        embeddings = torch.cat([embed(prefix), visual, embed(batch.tokens)], 1)
        lead = prefix.shape[1]
        positions = torch.cat(
            [
                torch.arange(lead, device=places.device).expand(rows, -1),
                lead + places,
                lead + _PATCHES + batch.offsets,
            ],
            1,
        )
        context = lead + visual.shape[1]
        hidden = decoder(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=_isolating_mask(batch.segments, context),
            use_cache=False,
        ).last_hidden_state[:, context:]
        return self.text_losses(hidden, batch)

    def text_losses(self, hidden: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute the results of `answer_loss` from the decoder output ``(B, T, width)`` at the packed text."""
        answered = batch.labels != IGNORED
        logits = self.model.lm_head(hidden[answered])
        labels = batch.labels[answered]
        right = torch.zeros_like(answered)
        right[answered] = logits.argmax(-1) == labels
        named = batch.subjects[..., 0] > 0
        facts = self.model.lm_head(hidden[named]).log_softmax(-1).gather(1, self._words(batch.subjects[named]))
        # easy-VQA names no shape of a scene, and a mean over nothing would be NaN.
        return F.cross_entropy(logits, labels), -facts.sum() / max(1, facts.numel()), right

    def _words(self, facts: torch.Tensor) -> torch.Tensor:
        """Token ids of the words of facts, of the same shape."""
        return self.fact_ids[torch.arange(facts.shape[-1], device=facts.device), facts]


def _isolating_mask(segments: torch.Tensor, context: int) -> torch.Tensor:
    """Causal mask ``(B, 1, S, S)`` bool in which a question sees the context and itself.

    Padding also sees the context, because a row without any visible key would be NaN.
    """
    everything = F.pad(segments, (context, 0))
    length = everything.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    in_context = torch.arange(length, device=segments.device) < context
    same = everything[:, :, None] == everything[:, None, :]
    return (causal & (in_context | same))[:, None]


def some_patches(facts: torch.Tensor, background: int, generator: torch.Generator) -> torch.Tensor:
    """Choose the patches on shapes and some of the others, for cheap steps on ideal tokens.

    Parameters
    ----------
    facts : torch.Tensor
        ``(B, V, 6)`` facts under each patch.
    background : int
        Additional patches, relative to the scene with the most patches on shapes.
    generator : torch.Generator

    Returns
    -------
    torch.Tensor
        ``(B, V')`` int64 in ascending order.
    """
    on_shape = facts[..., 0] > 0
    keep = min(facts.shape[1], int(on_shape.sum(1).max()) + background)
    order = torch.rand(on_shape.shape, generator=generator).to(facts.device) + on_shape
    return order.topk(keep, dim=1).indices.sort(1).values
