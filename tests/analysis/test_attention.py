"""Readings of `analyze` equal their definition on whole attention maps, and its cuts are the engine's own."""

import pytest
import torch
from PIL import Image

import vistrim
from tests import tiny
from tests.cli import checkpoint as builder
from tests.closeness import close
from vistrim import FastV, trim
from vistrim.analysis.attention import GivenRanking, analyze
from vistrim.analysis.attention.measures import jensen_shannon, sinks
from vistrim.analysis.attention.own_answers import next_token_divergence, own_answers
from vistrim.analysis.attention.reading import read_attention
from vistrim.analysis.attention.record import record
from vistrim.analysis.attention.report import Analysis
from vistrim.errors import ResumeError
from vistrim.evaluation.items import Item, Task

KEEP = 0.25


@torch.no_grad()
def maps_of(sample, answer):
    """Attention maps ``[layers, heads, rows, columns]`` and value norms ``[layers, heads, columns]``."""
    model, norms, handles = tiny.shared("llama", "eager"), [], []
    for layer in model.get_decoder().layers:
        hook = layer.self_attn.v_proj.register_forward_hook(lambda _, __, out: norms.append(out))
        handles.append(hook)
    ids = torch.tensor([sample.ids + answer[:-1]])
    try:
        out = model(input_ids=ids, pixel_values=sample.pixels, output_attentions=True)
    finally:
        for handle in handles:
            handle.remove()
    maps = torch.stack([layer[0] for layer in out.attentions])
    values = torch.stack([value[0].unflatten(-1, (2, -1)).norm(dim=-1).T.repeat_interleave(2, 0) for value in norms])
    return maps, values


def test_readings_equal_those_of_attention_maps():
    model, steps = tiny.shared(), 4
    own = own_answers(model, tiny.batch(tiny.RAGGED), steps)
    read, logits = read_attention(model, own, KEEP)
    for b, sample in enumerate(tiny.RAGGED):
        answer = own.tokens[b].tolist()
        maps, norms = maps_of(sample, answer)
        ids = torch.tensor(sample.ids)
        visual, width = ids == tiny.IMAGE, len(ids)
        question = torch.arange(width) > visual.nonzero().max()
        columns = torch.cat([visual, torch.zeros(steps - 1, dtype=torch.bool)])
        rows = maps.mean(1)
        contributed = (maps * norms[:, :, None]).mean(1)

        def mine(layers, b=b, width=width):
            """Without the padding on the left and the tokens after the prompt."""
            return torch.stack([layer[b] for layer in layers])[:, -(width + steps - 1) :]

        assert close(mine(read.received["last"]), rows[:, width - 1])
        assert close(mine(read.received["question"]), rows[:, :width][:, question].mean(1))
        assert close(mine(read.contributed["last"]), contributed[:, width - 1])
        assert close(mine(read.contributed["question"]), contributed[:, :width][:, question].mean(1))
        assert close(torch.stack([layer[b] for layer in read.steps_on_visual]), rows[:, width - 1 :, columns].sum(-1))
        assert close(
            torch.stack([layer[b] for layer in read.question_on_visual]),
            rows[:, :width][:, question][..., columns].sum(-1).mean(1),
        )
        # The top of each step, by an argument of its own: sorting the map.
        k = max(1, int(KEEP * int(visual.sum()) + 0.5))
        best = [[set(row[columns].topk(k).indices.tolist()) for row in layer[width - 1 :]] for layer in rows]
        found = record(read, b, steps, None)
        for layer in range(tiny.DEPTH):
            for step in range(steps):
                top = best[layer][step]
                assert found["steps"]["kept_from_prompt"][layer][step] == pytest.approx(
                    len(top & best[layer][0]) / k, abs=1e-3
                )
                if layer:
                    expected = len(top & best[layer - 1][step]) / k
                    assert found["steps"]["kept_from_layer"][layer][step] == pytest.approx(expected, abs=1e-3)
            for other in range(tiny.DEPTH):
                expected = jensen_shannon(rows[layer, width - 1], rows[other, width - 1]).item()
                assert found["divergence"]["row"][layer][other] == pytest.approx(expected, abs=1e-3)
    # The untouched model predicts its own answers.
    divergence, same = next_token_divergence(logits, model(**own.arguments()).logits)
    assert divergence.amax() < 1e-5
    assert same.all()


def test_a_cut_by_the_last_row_is_fastv_s():
    model = tiny.shared()
    own = own_answers(model, tiny.batch(tiny.RAGGED), 3)
    read, _ = read_attention(model, own, KEEP)
    outputs = []
    for method in (FastV(layer=2, keep=0.25), GivenRanking(2, KEEP, read.received["last"][1])):
        with torch.no_grad(), trim(model, method) as run:
            outputs.append(model(**own.arguments()).logits)
        assert [sum(layer) for layer in run.report.visual_tokens_per_layer[1:3]] == [64, 16]
    assert close(*outputs)


def test_measures_at_their_ends():
    p, q = torch.tensor([[0.5, 0.5, 0, 0]]), torch.tensor([[0, 0, 0.25, 0.75]])
    assert jensen_shannon(p, p).item() == 0
    assert jensen_shannon(p, q).item() == pytest.approx(1)
    scores = torch.full((40,), 0.1)
    scores[3] = 9.0
    scores[4] = 1.0
    assert sinks(scores, torch.ones(40, dtype=torch.bool)).nonzero().flatten().tolist() == [3]


def test_an_analysis_is_noted_and_goes_on(tmp_path, monkeypatch):
    model, processor = vistrim.load(str(builder.save(tmp_path / "tiny-llava")), device="cpu")
    items = [
        Item(
            f"image/{n}",
            Task("words", f"group {n % 2}"),
            f"what is w{n}",
            "",
            lambda: Image.new("RGB", (40, 30), "red"),
        )
        for n in range(3)
    ]
    out, done = tmp_path / "out", []
    rankings = ("last", "question-sum", "last-values", "uniform", "random", "none")
    settings = {"out": out, "layers": (2,), "rankings": rankings, "batch_size": 2, "max_new_tokens": 3}
    found = analyze(model, processor, items, advance=done.append, **settings)
    assert sum(done) == pytest.approx(3)
    figures = found.figures["groups"]["all"]
    assert tuple(figures["rankings"]) == rankings
    for ranking in figures["rankings"].values():
        assert all(
            low <= kept <= high for kept, (low, high) in zip(ranking["kept"], ranking["kept_interval"], strict=True)
        )
        assert all(value >= 0 for value in ranking["mean"])
    assert all(0 <= value <= 1 for value in figures["other_question"]["last"])
    assert "### Answers kept: group 1" in "\n".join(table.markdown() for table in found.tables())
    alone = Analysis({"groups": {"all": found.figures["groups"]["group 0"]}}, found.settings)
    for analysis, groups in ((found, ["group 0", "group 1"]), (alone, ["all"])):
        titles = [table.title for table in analysis.tables() if "over the answer" in table.title]
        assert titles == [f"Attention on visual tokens over the answer: {name}" for name in groups]
    monkeypatch.setattr(model, "generate", None)
    assert analyze(model, processor, items, **settings).figures == found.figures
    with pytest.raises(ResumeError, match="keep"):
        analyze(model, processor, items, **(settings | {"keep": 0.5}))


def test_bad_input():
    model = tiny.shared()
    for wrong, message in (
        ({"keep": 1.5}, "share of the visual tokens"),
        ({"rankings": ("best",)}, "no ranking 'best'"),
        ({"layers": (tiny.DEPTH - 1,)}, "before the following layer"),
        ({}, "no question"),
    ):
        with pytest.raises(ValueError, match=message):
            analyze(model, None, [], **wrong)
