"""The comparison with stock layers: rows are those that the layers had, and shares are of the same round."""

import json

import pytest

from studies.rows import measure


@pytest.mark.slow
def test_rows_and_shares(tmp_path):
    out = tmp_path / "rows.json"
    sizes = ["--layers", "6", "--hidden", "128", "--distinct-layers", "2", "--visual-tokens", "576"]
    methods = ["--method", "uniform:keep=64", "--method", "fastv:keep=0.5"]
    measure.main([*sizes, *methods, "--rounds", "2", "--repeats", "1", "--threads", "1", "--out", str(out)])
    untouched, uniform, fastv = json.loads(out.read_text())["rows"]
    assert untouched["rows"] == [64 + 576] * 6
    assert uniform["rows"] == [64 + 64] * 6
    assert fastv["rows"] == [64 + 576] * 2 + [64 + 288] * 4
    assert untouched["shares"] == [1.0, 1.0]
    for row in (uniform, fastv):
        pairs = zip(untouched["runs"], row["runs"], strict=True)
        wanted = [(before / after) / (stock / left) for (before, stock), (after, left) in pairs]
        assert row["shares"] == pytest.approx(wanted)


def test_layers_of_equal_rows_are_timed_up_to_a_limit(monkeypatch):
    timed = []
    layers = measure.StockLayers(None, repeats=3)
    monkeypatch.setattr(layers, "_layer", lambda n: timed.append(n) or float(n))
    assert layers.seconds([10, 10, 4, 4, 4, 4, 4, 1]) == 2 * 10 + 5 * 4 + 1
    assert timed == [10, 10, 4, 4, 4, 1]


def test_a_method_that_does_not_fit_is_refused_before_any_run(monkeypatch):
    monkeypatch.setattr(measure, "time_generation", lambda *a, **k: pytest.fail("a run was started"))
    with pytest.raises(ValueError, match="layer=16"):
        measure.main(["--layers", "2", "--hidden", "128", "--distinct-layers", "2", "--method", "vtw"])
