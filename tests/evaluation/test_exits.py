"""What samples that a guide answers alone cost, and how they show in the tables."""

import pytest
import torch

from studies.exits.measure import RATES, Question, mix, thresholds
from tests import guides, tiny
from tests.cli.checkpoint import build_processor
from tests.evaluation.samples import sample
from vistrim import SGL, Uniform, trim
from vistrim.evaluation import Records, summarize
from vistrim.evaluation.accuracy_tables import tables
from vistrim.evaluation.answering import answer
from vistrim.evaluation.items import Item
from vistrim.prompting import format_prompts
from vistrim.reference.items import EVALUATED, items

NEW_TOKENS = 5


@pytest.fixture(scope="module")
def asked():
    return [item for task in ("color", "relation") for item in items(task, "test", "several", 2)]


def test_costs_are_those_of_the_item_alone(asked):
    model, processor = tiny.shared(), build_processor()
    inputs = format_prompts(processor, [item.prompt for item in asked], [[item.image()] for item in asked])
    with trim(model, SGL(guides.shared(), exit_threshold=1.0)) as run, torch.no_grad():
        model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    scores = sorted(run.report.exit_scores)
    method = SGL(guides.shared(), exit_threshold=(scores[1] + scores[2]) / 2)
    together = answer(model, processor, asked, method, NEW_TOKENS)
    assert together == [answer(model, processor, [item], method, NEW_TOKENS)[0] for item in asked]
    assert sum(given.exited for given in together) == 2
    never = answer(model, processor, asked, SGL(guides.shared(), exit_threshold=1.0), NEW_TOKENS)
    alone = answer(guides.shared(), processor, asked, None, NEW_TOKENS)
    for given, model_only, guide in zip(together, never, alone, strict=True):
        assert given.method_flops == model_only.method_flops
        if not given.exited:
            assert given == model_only
            continue
        assert given.answer == guide.answer
        assert given.new_tokens == guide.new_tokens
        assert given.prefill_flops == given.vision_flops == given.average_tokens == 0
        assert given.kv_mean == given.kv_bytes_peak == 0
        assert given.kv_bytes_full == model_only.kv_bytes_full
        assert given.prefill_flops_full == model_only.prefill_flops_full
        assert given.method_flops > guide.prefill_flops + guide.vision_flops


def test_the_share_of_exits_is_shown_where_there_are_any(tmp_path):
    records, methods = Records(tmp_path / "s.jsonl", {}), {"guided": SGL(guides.shared()), "uniform": Uniform()}
    asked = [Item(name, EVALUATED["color"], "What?", "red", lambda: None) for name in "abcd"]
    records.append([sample(name) for name in "abcd"])
    records.append([sample(name, str(methods["uniform"])) for name in "abcd"])
    gone = {"exited": True, "prefill_flops": 0.0, "vision_flops": 0.0, "method_flops": 40.0}
    records.append([sample("a", str(methods["guided"]), **gone)])
    records.append([sample(name, str(methods["guided"]), method_flops=40.0) for name in "bcd"])
    records.close()
    with Records(tmp_path / "s.jsonl", {}) as again:
        rows = summarize(again, asked, methods)
    untouched, guided, _ = (row.groups["Short answers"] for row in rows)
    assert (untouched.exited, guided.exited) == (0, 0.25)
    assert guided.flops_ratio == pytest.approx(100 / (75 + 40))
    assert guided.flops_ratio_with_vision == pytest.approx(120 / (75 + 40 + 15))
    table = tables(rows)[0]
    assert table.columns[-1] == "exited"
    assert [row[-1] for row in table.rows] == ["0.0 %", "25.0 %", "0.0 %"]
    assert "exited" not in tables([rows[0], rows[2]])[0].columns


def test_mixes_of_answers_by_threshold():
    """Of two tasks; the guide is right where it is sure."""
    scores = {"color": [0.9, 0.2, 0.2, 0.1], "count": [0.8, 0.3]}
    questions = [
        Question(task, f"{task}/{i}", s, float(s > 0.5), 1.0, 1.0, guide_flops=10, guided_flops=30, full_flops=100)
        for task, row in scores.items()
        for i, s in enumerate(row)
    ]
    assert mix(questions, 1.0).flops_ratio == pytest.approx(100 / 40)
    half = mix(questions, 0.5)
    assert (half.exit_rate, half.accuracy) == (pytest.approx((1 / 4 + 1 / 2) / 2), 1.0)
    assert half.by_lot == pytest.approx((1 / 4 * 1 / 4 + 3 / 4 + 1 / 2 * 1 / 2 + 1 / 2) / 2)
    assert half.flops_ratio == pytest.approx(100 / (10 + 30 * (3 / 4 + 1 / 2) / 2))
    assert mix(questions, 0.0).accuracy == mix(questions, 0.0).by_lot == pytest.approx((1 / 4 + 1 / 2) / 2)
    # Ties exit together.
    assert thresholds(questions, [0, 0.5, 0.6, 0.8, 1]) == [1.0, 0.2, 0.1, 0.0]
    assert thresholds(questions, RATES)[-1] == 0.0
