"""SparseVLM: counts, raters, recycling, variants."""

import pytest
import torch

from tests import tiny
from tests.closeness import close
from vistrim import SparseVLM, trim
from vistrim.core.scores import AttentionRows, Softmax
from vistrim.methods.base.stage_inputs import LayerTokens


def layer_tokens(n, held=None, images=1, initial=None, hidden=None, seed=0):
    """A prompt of 5 words, ``n`` visual tokens and 7 words."""
    generator = torch.Generator().manual_seed(seed)
    visual = torch.zeros(1, n + 12, dtype=torch.bool)
    visual[0, 5 : 5 + n] = True
    scores = torch.rand(1, n + 12, generator=generator)
    hidden = torch.randn(1, n + 12, 16, generator=generator) if hidden is None else hidden
    return LayerTokens(scores, visual, (n,), (initial or n,), 32, (images,), hidden)


@pytest.mark.parametrize(
    ("variant", "budget", "counts"),
    [
        ("1.5", 192, [309, 204, 113]),
        ("1.5", 128, [312, 117, 39]),
        ("1.5", 96, [249, 55, 27]),
        ("1.5", 64, [82, 32, 18]),
        ("plus", 192, [300, 200, 118]),
        ("plus", 64, [66, 34, 20]),
    ],
)
def test_presets_keep_the_published_numbers_of_576(variant, budget, counts):
    method, n, found = SparseVLM(budget, variant), 576, []
    for layer in method.prefill_layers(32):
        selection = method.select_prefill(layer, layer_tokens(n, initial=576))
        assert int(selection.keep.sum()) == selection.counts[0]
        n = selection.counts[0]
        found.append(n)
    assert found == counts
    assert method.prefill_layers(32) == (3, 7, 16)


def test_preset_of_192_in_a_model_with_576_tokens(monkeypatch):
    monkeypatch.setitem(tiny._VISION, "image_size", 48)
    monkeypatch.setitem(tiny._VISION, "patch_size", 2)
    model = tiny.build(num_hidden_layers=18)
    ids = [tiny.BOS, 5, *[tiny.IMAGE] * 576, 7, 8, 9]
    inputs = tiny.batch([tiny.Sample(ids, torch.randn(1, 3, 48, 48))])
    with trim(model, SparseVLM()) as run:
        tiny.generate(model, inputs, 2)
    per_layer = [576] * 3 + [309] * 4 + [204] * 9 + [113] * 2
    assert run.report.visual_tokens_per_layer == [[n] for n in per_layer]
    # Five words, and one generated token that was read.
    assert run.report.kv_tokens_per_layer == [[n + 5 + 1] for n in per_layer]
    assert len(run.report.stages[0].merged[0]) == 9


def test_published_mean_of_the_preset():
    """206.5 tokens per layer, not the 192 of the authors' counter."""
    per_layer = [576] * 3 + [309] * 4 + [204] * 9 + [113] * 16
    assert sum(per_layer) / 32 == pytest.approx(206.5, abs=0.05)


def test_the_best_stay_and_the_best_of_the_rest_are_recycled():
    tokens = layer_tokens(40)
    selection = SparseVLM(layers=(0,), counts=(10,)).select_prefill(1, tokens)
    order = sorted(range(5, 45), key=lambda i: -tokens.scores[0, i].item())
    kept = set(selection.keep[0].nonzero()[:, 0].tolist())
    centers = set((selection.behind[0] >= 0).nonzero()[:, 0].tolist())
    recycled = set(order[10:20])
    assert kept == set(order[:10]) | centers
    assert len(centers) == 10 // 10 + 1
    assert centers <= recycled
    merged = (selection.merge_into[0] >= 0).nonzero()[:, 0].tolist()
    assert set(merged) == recycled - centers
    assert set(selection.merge_into[0, merged].tolist()) <= centers
    assert selection.renumber


def test_a_cut_that_saves_nothing_is_left_out():
    for counts in (1.0, 39, 40, 99):
        assert SparseVLM(layers=(0,), counts=(counts,)).select_prefill(1, layer_tokens(40)) is None
    assert SparseVLM(layers=(0,), counts=(38,)).select_prefill(1, layer_tokens(40)).counts == (39,)
    plus = SparseVLM(variant="plus", layers=(0,), counts=(39,))
    assert plus.select_prefill(1, layer_tokens(40)).counts == (39,)


def test_numbers_are_per_image_and_shares_of_the_entering_tokens():
    method = SparseVLM(layers=(0,), counts=(10,))
    assert method.select_prefill(1, layer_tokens(40, images=2)).counts == (20 + 1,)
    share = SparseVLM(layers=(0,), counts=(0.25,))
    assert share.select_prefill(1, layer_tokens(40, images=2, initial=80)).counts == (20 + 1,)


def test_raters_are_the_words_above_average():
    """Two of five words point where the image points."""
    embeddings, visual = torch.zeros(1, 12, 4), torch.zeros(1, 12, dtype=torch.bool)
    visual[0, 2:6] = True
    embeddings[0, 2:6] = torch.tensor([3.0, 0, 0, 0])
    embeddings[0, 0], embeddings[0, 7], embeddings[0, 9] = embeddings[0, 2], embeddings[0, 2], embeddings[0, 2]
    prompt = torch.ones_like(visual)
    prompt[0, 11] = False
    rows = SparseVLM().query_rows(embeddings, visual, prompt)
    assert rows[0].nonzero()[:, 0].tolist() == [7, 9]
    embeddings[0, 6:11] = 1.0
    assert SparseVLM().query_rows(embeddings, visual, prompt)[0].nonzero()[:, 0].tolist() == [6, 7, 8, 9, 10]


def test_version_1_counts_by_the_rank_of_the_attention():
    """Three rows, two of them equal: rank 2."""
    tokens = layer_tokens(40)
    key = torch.randn(1, 1, 52, 8, generator=torch.Generator().manual_seed(1))
    query = torch.randn(1, 1, 3, 8, generator=torch.Generator().manual_seed(2))
    query[:, :, 1] = query[:, :, 0]
    rows = AttentionRows(query, key, None, Softmax(0.3), 52, torch.tensor([[45, 46, 47]]))
    tokens = LayerTokens(rows.received(), tokens.visual, (40,), (40,), 32, (1,), tokens.hidden, rows)
    selection = SparseVLM(128, "1.0").select_prefill(3, tokens)
    recycled = int(0.3 * (40 - (9 * 2 + 6))) + 1
    assert selection.counts == (9 * 2 + 6 + recycled // 10 + 1,)


def test_the_prior_of_rope_is_divided_out():
    """Attention that follows the prior exactly is even behind the correction."""
    model, width = tiny.shared(), 20
    tables = model.get_decoder().rotary_emb(torch.zeros(1, width, 32), position_ids=torch.arange(width)[None])
    cos, sin = (t[0] for t in tables)
    ones = torch.ones(cos.shape[-1] // 2)
    rotated = torch.cat([ones * cos[:, :4] - ones * sin[:, :4], ones * cos[:, 4:] + ones * sin[:, 4:]], 1)
    prior = rotated @ rotated.T / cos.shape[-1] ** 0.5
    near = [i for i in range(width - 1) if prior[width - 1, i] > 0.2 * prior[0, 0]]

    class Prior(AttentionRows):
        def blocks(self):
            yield prior[None, None, -1:].expand(1, 2, -1, -1), self.places

    rows = Prior(
        torch.zeros(1, 2, 1, 8),
        torch.zeros(1, 2, width, 8),
        None,
        1.0,
        width,
        torch.tensor([[width - 1]]),
        rotary=tables,
    )
    visual = torch.ones(1, width, dtype=torch.bool)
    score = SparseVLM(variant="plus").score(rows, visual)[0]
    assert len(near) > 3
    assert close(score[near], torch.ones(len(near)))


@pytest.mark.parametrize("positions", ["original", "renumber"])
def test_merged_tokens_take_part_in_later_stages(positions):
    """They are counted, can be dropped or merged again, and are named by their center."""
    model, samples = tiny.shared(), tiny.RAGGED
    method = SparseVLM(layers=(0, 2), counts=(6, 2), positions=positions)
    with trim(model, method) as run:
        output = tiny.generate(model, tiny.batch(samples))
    first, second = run.report.stages
    for b, sample in enumerate(samples):
        images = sample.visual // tiny.TOKENS_PER_IMAGE
        assert run.report.visual_tokens_per_layer[1][b] == 6 * images + 1 == len(first.kept[b])
        assert run.report.visual_tokens_per_layer[3][b] == 2 * images + 1 == len(second.kept[b])
        assert len(first.merged[b]) == 1
        assert set(first.merged[b]) <= set(first.kept[b])
        assert set(second.kept[b]) <= set(first.kept[b])
        assert set(second.merged[b]) - set(first.merged[b])
        assert run.report.kv_tokens_per_layer[3][b] == sample.text + 2 * images + 1 + 7
    alone = []
    for sample in samples:
        with trim(model, method):
            alone.append(tiny.logits(tiny.generate(model, tiny.batch([sample]))))
    assert close(torch.cat(alone), tiny.logits(output))
