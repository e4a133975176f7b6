"""The comparison of ways to anneal: rows at a budget, paired with the literal reading; it resumes and grows."""

import json
from functools import cache

import pytest

from studies.annealing import measure
from studies.annealing.rows import BASES, LITERAL, VARIANTS, settings_of, wanted
from vistrim.evaluation import runner


@pytest.mark.slow
def test_the_comparison_resumes_and_only_grows(tmp_path, monkeypatch):
    answered = []
    original = runner._answered

    def counting(model, processor, items, method, longest):
        answered.extend(item.id for item in items)
        return original(model, processor, items, method, longest)

    monkeypatch.setattr(runner, "_answered", counting)
    monkeypatch.setattr(measure, "load", cache(measure.load))
    common = ["--model", "reference-small", "--tasks", "description,color", "--max-new-tokens", "6", "--st3", "0.5"]

    def run(questions, *variants):
        answered.clear()
        chosen = [word for label in variants for word in ("--variant", label)]
        measure.main([*common, "--questions", questions, "--out", str(tmp_path), *chosen])
        return len(answered), json.loads((tmp_path / "results.json").read_text())

    count, first = run("1", "question, half spaced")
    # Two questions, and three methods: answers of six tokens are too short for the budget of `vta`.
    assert count == 6
    assert {row["label"] for row in first["rows"] if row["reason"]} == {LITERAL, "question, half spaced"}
    name = f"st3 at 0.5, {LITERAL}"
    assert set(first["figures"]) == {"untouched", name, "st3 at 0.5, question, half spaced"}
    assert all(row["reached"] <= 0.5 for row in first["rows"] if row["method"])
    assert run("1", "question, half spaced")[0] == 0
    count, more = run("2", floors := "floors fall with depth")
    assert count == 2 * 3 + 4
    assert [row for row in more["rows"] if row["label"] != floors] == first["rows"]
    text = (tmp_path / "results.md").read_text()
    assert "it reaches from" in text
    assert "decode_rows=prompt,spread=0.5" in text


def test_rows_are_variants_of_the_same_base():
    assert [row.label for row in wanted([], {"vta": 0.6})] == list(VARIANTS)
    assert next(wanted(["question"], {"st3": 0.3})).label == LITERAL
    with pytest.raises(ValueError, match="no variant answer: choose from current token; answer so far"):
        list(wanted(["answer"], {"vta": 0.6}))
    for label in VARIANTS:
        floor = settings_of("st3", label, 12)["floor"]
        assert (sum(floor) / 12 if isinstance(floor, tuple) else floor) == pytest.approx(BASES["st3"]["floor"])
