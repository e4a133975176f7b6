"""`vistrim calibrate st3`: what is searched is what runs, at the budget, and no worse than the default."""

import json
from dataclasses import replace

import pytest
import torch

import vistrim
from tests import tiny
from tests.closeness import close
from vistrim import ST3, trim
from vistrim.analysis.attention.own_answers import own_answers
from vistrim.calibration.st3 import losses as measuring
from vistrim.calibration.st3 import search as searching
from vistrim.calibration.st3.calibrating import fit_schedule
from vistrim.calibration.st3.candidates import Worth, closed_form, closed_forms, neighbors, schedules, single_cuts
from vistrim.calibration.st3.losses import step_by_step
from vistrim.calibration.st3.prompts import Batch, balanced, rung_sizes
from vistrim.core.selection import keep_top
from vistrim.engine import describe
from vistrim.errors import ResumeError
from vistrim.methods.base.cut_schedule import Annealing, CutSchedule, read_cut_schedule
from vistrim.methods.base.cuts import Cuts
from vistrim.methods.fitted_st3 import FittedST3, deviations
from vistrim.methods.vta import VTA
from vistrim.prompting import format_prompts
from vistrim.reference.suites import questions

FULL = "prefill_flops_full"
ANNEALING = Annealing("cosine", 7, 0.1, 2)


def schedule(cuts: Cuts) -> CutSchedule:
    return CutSchedule("", {"layers": tiny.DEPTH, "hidden": 32}, "flops=0.5", cuts, ANNEALING, {"seed": 1}, "0")


def kept(method):
    with trim(tiny.shared(), method) as run:
        output = tiny.generate(tiny.shared(), tiny.batch(tiny.RAGGED), 7)
    return run.report, output


def test_a_schedule_of_the_closed_form_runs_as_the_closed_form(tmp_path):
    cuts = Cuts((1, 3), (0.7, 0.7**2))
    path = tmp_path / "st3.json"
    schedule(cuts).write(path)
    assert read_cut_schedule(path) == schedule(cuts)
    other = replace(schedule(cuts), annealing=Annealing("cosine", 7, (0.1, 0.2), 2, "answer", 0.5))
    other.write(tmp_path / "other.json")
    assert read_cut_schedule(tmp_path / "other.json") == other
    report, output = kept(ST3(schedule=str(path)))
    expected, same = kept(ST3(1, 2, 0.3, "cosine", 7, 0.1, 2))
    assert torch.equal(output.sequences, same.sequences)
    assert close(tiny.logits(output), tiny.logits(same))
    for figure in ("stages", "visual_tokens_per_layer", "kv_tokens_per_layer", "kv_fraction_mean"):
        assert getattr(report, figure) == getattr(expected, figure)
    # Two cuts, which is fewer than a progressive schedule has, and nothing else.
    assert (
        report.method == f"st3:schedule={path} (fitted to this model at flops=0.5; differs from ST³: fewer than 3 cuts)"
    )
    assert vistrim.get_method("st3", schedule=str(path)) == vistrim.method_from_dict(ST3(schedule=str(path)).to_dict())


@torch.no_grad()
def test_rankings_equal_those_of_attention_maps():
    """Averages over layers and choices of heads, for both kinds of rows; the first cut is the whole prompt's."""
    model, layer, share = tiny.shared(), 3, 0.25
    for rows in ("last", "prompt"):
        for averaged in (False, True):
            for heads in (1.0, 0.5):
                with trim(model, FittedST3(Cuts((layer,), (share,), rows, averaged, heads), VTA("constant"), 5)) as run:
                    model(**tiny.batch(tiny.RAGGED))
                for b, sample in enumerate(tiny.RAGGED):
                    inputs = tiny.batch([sample])
                    maps = tiny.shared("llama", "eager")(**inputs, output_attentions=True).attentions
                    visual = torch.tensor(sample.ids) == tiny.IMAGE
                    asks = torch.arange(len(visual)) > visual.nonzero().max()
                    if rows == "last":
                        asks = torch.arange(len(visual)) == len(visual) - 1
                    scores = []
                    for of_layer in maps[:layer] if averaged else maps[layer - 1 : layer]:
                        received = of_layer[0][:, asks].mean(1)
                        strongest = received[:, visual].sum(1).topk(round(heads * len(received))).indices
                        scores.append(received[strongest].mean(0))
                    count = round(share * int(visual.sum()))
                    best = keep_top(torch.stack(scores).mean(0)[None], visual[None], [count]).keep[0]
                    expected = best[visual].nonzero().flatten().tolist()
                    assert run.report.stages[-1].kept[b] == expected


def test_several_cuts_average_only_the_layers_since_the_last_one():
    """The second ranking of two equals that of a prompt from which the first cut's tokens were removed."""
    model, cuts = tiny.shared(), Cuts((2, 4), (0.5, 0.25), averaged=True)
    seen = []

    class Watched(FittedST3):
        def select_prefill(self, layer, tokens):
            seen.append((layer, tokens.scores, tokens.visual))
            return super().select_prefill(layer, tokens)

        def score(self, attention, visual):
            seen.append(("one", super().score(attention, visual), visual))
            return seen[-1][1]

    with torch.no_grad(), trim(model, Watched(cuts, VTA("constant"), 5)):
        model(**tiny.batch(tiny.RAGGED))
    assert [name for name, *_ in seen] == ["one", "one", 2, "one", "one", 4]
    for first, second, mean in (seen[:3], seen[3:]):
        assert close((first[1] + second[1]) / 2, mean[1])


def test_step_by_step_equals_one_pass():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    own = own_answers(model, inputs, 4)
    batch = Batch([], 0, inputs, own, torch.empty(0), [])
    with torch.no_grad(), trim(model, FittedST3(Cuts((2,), (0.4,)), VTA("constant"), 5)):
        assert close(step_by_step(model, batch), own.predicted(model(**own.arguments())))


def test_cuts_are_scaled_and_described():
    cuts = Cuts((2, 5, 8), (0.6, 0.3, 0.0), "prompt", averaged=True, heads=0.25)
    for mean_keep in (0.18, 0.3, 0.42, 0.9, 1.0):
        assert cuts.with_mean_keep(mean_keep, 12).mean_keep(12) == pytest.approx(mean_keep, abs=1e-6)
    assert cuts.with_mean_keep(0.3, 12).shares[-1] == 0
    with pytest.raises(ValueError, match=r"above 0\.1667 and at most 1"):
        cuts.with_mean_keep(0.1, 12)
    found = ", ".join(deviations(cuts, 12))
    for phrase in ("layers 2/5/8 to 60/30/0 %", "all text", "mean of the layers", "25% of the heads"):
        assert phrase in found
    assert deviations(closed_form(1, 3, 12).scaled(0.37), 12) == []
    assert all(deviations(one, 12) == [] for one in closed_forms(12))
    for wrong in (((0,), (0.5,)), ((2, 2), (0.5, 0.4)), ((2, 3), (0.4, 0.5)), ((2,), (0.5, 0.4)), ((2,), (1.5,))):
        with pytest.raises(ValueError, match=r"layers|shares"):
            Cuts(*wrong)


def test_candidates_have_the_mean_and_prefer_rankings_that_lose_little():
    probes = single_cuts(range(1, 12))
    lost = {cuts: 0.0 if cuts.rows == "prompt" and cuts.layers[0] >= 4 else 0.5 for cuts in probes}
    worth = Worth.of(lost | {cuts: float(cuts.layers[0] < 7) for cuts in probes if not cuts.shares[0]})
    found = schedules(12, 0.4, worth, 20)
    assert len(set(found)) == 20
    assert all(cuts.mean_keep(12) == pytest.approx(0.4, abs=1e-6) for cuts in found)
    assert found[0].rows == "prompt"
    assert found[0].layers[0] >= 4
    assert all(other != found[0] for other in neighbors(found[0], 12))


def test_prompts_are_balanced_over_tasks():
    items = questions("reference", "color,count,description", split="validation", limit=4)
    groups = balanced(items, 3)
    assert sorted(len(own) for own in groups.values()) == [3, 3]
    assert {item.task.name for own in groups.values() for item in own[:2]} == {"color", "count", "description"}
    assert rung_sizes(32, 4) == [4, 8, 16, 32]
    assert rung_sizes(2, 4) == [1, 1, 1, 2]


def test_a_search_beats_the_default_keeps_the_budget_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "WIDTHS", (4, 2, 2, 2))
    monkeypatch.setattr(searching, "NEW", (0, 2, 0, 0))
    model, processor = vistrim.load("reference-small", device="cpu")
    items = questions("reference-small", "color", split="validation", limit=2)
    progress, done = tmp_path / "progress.jsonl", []
    settings = {"prompts": 2, "max_new_tokens": 3, "progress_file": progress}
    found = fit_schedule(model, processor, items, "flops=0.5", advance=done.append, **settings)
    evidence = found.made_with["evidence"]
    assert evidence["loss"]["lost"] <= evidence["loss_of_default_st3"]["lost"]
    assert 0.49 < evidence["reached"]["flops"] <= 0.5
    assert 0.5 < sum(done) <= 1
    # Planned is what is reported.
    path = tmp_path / "st3.json"
    found.write(path)
    with trim(model, ST3(schedule=str(path))) as run:
        for item in items:
            inputs = format_prompts(processor, [item.prompt], [item.images()])
            model.generate(**inputs, max_new_tokens=3, do_sample=False)
    spent, full = (sum(getattr(report, name) for report in run.reports) for name in ("prefill_flops", FULL))
    assert spent / full == pytest.approx(evidence["reached"]["flops"])
    # Everything is known.
    monkeypatch.setattr(measuring, "trim", None)
    assert fit_schedule(model, processor, items, "flops=0.5", **settings).content() == found.content()
    with pytest.raises(ResumeError, match="questions"):
        fit_schedule(model, processor, items[:1], "flops=0.5", **settings)
    # A budget scales it.
    scaled = vistrim.at_budget(f"st3:schedule={path}", model, tokens=0.6)
    assert scaled.parameter == "mean_keep"
    assert scaled.reached == pytest.approx(0.6, abs=0.01)
    with pytest.raises(ValueError, match=r"for a model with 'reference-small'"):
        ST3(schedule=str(path)).fitted(facts())


def facts():
    return describe(tiny.shared()).facts


def test_wrong_schedules(tmp_path):
    with pytest.raises(ValueError, match="there is no schedule of st3 for this model"):
        ST3(schedule="auto").fitted(facts())
    with pytest.raises(ValueError, match=r"there is no schedule missing\.json"):
        ST3(schedule="missing.json").fitted(facts())
    with pytest.raises(ValueError, match="either a schedule or stride"):
        ST3(schedule="auto", stride=2)
    with pytest.raises(ValueError, match="mean_keep scales a schedule"):
        ST3(mean_keep=0.5)
    path, right = tmp_path / "st3.json", schedule(Cuts((1,), (0.5,))).content()
    for change, message in (
        ({"method": "gsearch"}, "is a schedule for gsearch"),
        ({"format": 9}, "another format"),
        ({"cuts": [{"layer": 0, "keep": 0.5}]}, "damaged"),
        ({"ranking": {"rows": "first"}}, "rows='first'"),
        ({"annealing": {"decay": "cosine"}}, "damaged"),
        ({"extra": 1}, r"damaged \(extra\)"),
        ({"shape": {"layers": 7}}, "7 layers"),
    ):
        path.write_text(json.dumps(right | change))
        with pytest.raises(ValueError, match=message):
            ST3(schedule=str(path)).fitted(facts())
