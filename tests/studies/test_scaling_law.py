"""The scaling law: fits to the shipped data, and conclusions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.scaling_law.fit import fit, fit_grid, squared_error
from studies.scaling_law.law import (
    ACCURACY,
    GRID_REFIT,
    OCR_PUBLISHED,
    OCR_REFIT,
    PARAMETERS,
    POINTS,
    PUBLISHED,
    REFIT,
    VISUAL_TOKENS,
    Exponents,
    ScalingLaw,
    best_visual_tokens,
    choices,
    flops,
)
from studies.scaling_law.measure import choices_table, main


def test_the_data():
    assert len(ACCURACY) == len(PARAMETERS) == 4
    assert all(len(row) == len(VISUAL_TOKENS) == 7 for row in ACCURACY)
    assert len(POINTS) == 28
    # More parameters and more tokens are better everywhere.
    assert all(list(row) == sorted(row) for row in ACCURACY)
    assert all(list(column) == sorted(column) for column in zip(*ACCURACY, strict=True))


def test_least_squares_is_the_shipped_refit():
    found = fit()
    assert found.alpha == pytest.approx(REFIT.alpha, abs=5e-5)
    assert found.beta == pytest.approx(REFIT.beta, abs=5e-5)
    assert found.amplitude == pytest.approx(REFIT.amplitude, abs=5e-4)
    assert squared_error(found) == pytest.approx(3.79e-4, abs=1e-6)
    assert max(abs(found.error(n, t) - error) for n, t, error in POINTS) == pytest.approx(0.007, abs=1e-4)
    assert found.ratio == pytest.approx(4.7, abs=0.05)


def test_nothing_near_the_least_squares_is_better():
    found = fit()
    for change in (0.999, 1.001):
        for name in ("alpha", "beta", "amplitude"):
            other = ScalingLaw(**{**vars(found), name: getattr(found, name) * change})
            assert squared_error(other) > squared_error(found)


def test_the_whole_grid_is_the_shipped_grid_refit():
    found = fit_grid()
    assert found.alpha == pytest.approx(GRID_REFIT.alpha, abs=5e-5)
    assert found.beta == pytest.approx(GRID_REFIT.beta, abs=5e-5)
    assert found.amplitude == pytest.approx(GRID_REFIT.amplitude, abs=5e-4)
    assert found.floor == pytest.approx(GRID_REFIT.floor, abs=5e-5)
    assert squared_error(found) == pytest.approx(3.96e-4, abs=1e-6)


def test_the_floor_is_not_determined_but_the_ratio_is():
    fits = [fit(floor=floor) for floor in (0, 0.1, 0.2, 0.3)]
    assert squared_error(fits[-1]) < 2 * squared_error(fits[0])
    assert fits[-1].alpha == pytest.approx(0.159, abs=5e-4)
    assert fits[-1].beta == pytest.approx(0.034, abs=5e-4)
    assert all(law.ratio == pytest.approx(4.7, abs=0.04) for law in fits)


def test_a_law_is_fitted_exactly_to_its_predictions():
    law = ScalingLaw(alpha=0.05, beta=0.03, amplitude=0.6, floor=0.1)
    points = [(n, t, law.error(n, t)) for n in (0.5, 2, 8) for t in (1, 30, 500)]
    found = fit(points, floor=0.1)
    assert vars(found) == pytest.approx(vars(law))


def test_prediction_for_14_billion_parameters():
    predicted = [REFIT.error(14, v) for v in VISUAL_TOKENS]
    assert predicted == pytest.approx([0.490, 0.480, 0.470, 0.464, 0.460, 0.455, 0.445], abs=6e-4)


def test_best_numbers_of_tokens():
    assert best_visual_tokens(PUBLISHED, 50) == pytest.approx(12.1, abs=0.05)
    assert best_visual_tokens(REFIT, 50) == pytest.approx(13.5, abs=0.05)
    assert best_visual_tokens(PUBLISHED, 0) == 1
    assert best_visual_tokens(PUBLISHED, 1e6) == 576
    assert best_visual_tokens(OCR_PUBLISHED, 50) == best_visual_tokens(OCR_REFIT, 0, most=576) == 576
    assert best_visual_tokens(OCR_REFIT, 50, most=144) == 144
    assert PUBLISHED.ratio == pytest.approx(5.1, abs=0.05)


exponents = st.builds(Exponents, st.floats(0.01, 0.2), st.floats(0.005, 0.2))


@given(exponents, st.floats(0, 500), st.floats(1, 576))
def test_no_number_of_tokens_is_better_at_equal_flops(law, text, other):
    best = best_visual_tokens(law, text)
    error, its = (law.reducible(100 / (text + v), v) for v in (best, other))
    assert error <= its * (1 + 1e-9)


@given(exponents, st.integers(0, 500), st.floats(600, 1e5))
def test_choices_keep_the_budget_and_come_best_first(law, text, budget):
    found = choices(law, text, budget)
    assert [c.reducible for c in found] == sorted(c.reducible for c in found)
    for choice in found:
        assert 1 <= choice.visual_tokens <= 576
        assert choice.flops == flops(choice.parameters, text, choice.visual_tokens) <= budget * (1 + 1e-9)
        one_more = flops(choice.parameters, text, choice.visual_tokens + 1)
        assert choice.visual_tokens == 576 or one_more > budget * (1 - 1e-9)


def test_a_budget_that_buys_nothing_is_refused():
    with pytest.raises(ValueError, match=r"too small for 50 text tokens .*0\.5 billion parameters, takes 51"):
        choices(REFIT, 50, 50)
    assert [c.parameters for c in choices(REFIT, 50, 51)] == [0.5]


@pytest.mark.slow
def test_the_study_writes_its_tables_and_its_figure(tmp_path):
    main(["--out", str(tmp_path)])
    written = (tmp_path / "results.md").read_text()
    assert "13.5" in written
    assert "12.1" in written
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert choices_table("refit", 50, 1e12).rows[0][:2] == ("7", "21")
