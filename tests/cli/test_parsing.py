import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistrim import (
    PVTP,
    ST3,
    VTA,
    VTCCLS,
    FasterVLM,
    GSearch,
    Pool,
    PSigmoid,
    PyramidDrop,
    Random,
    SparseVLM,
    Uniform,
    VisPruner,
    compose,
)
from vistrim.cli.error_lines import WrongUsageError
from vistrim.cli.parsing import parse_method


@pytest.mark.parametrize(
    ("spec", "settings", "preset", "expected"),
    [
        ("st3", [], None, ST3()),
        ("st3:drop_per_cut=0.5,stride=2", [], None, ST3(drop_per_cut=0.5, stride=2)),
        ("st3", ["drop_per_cut=0.5", "stride=2"], None, ST3(drop_per_cut=0.5, stride=2)),
        ("st3:drop_per_cut=0.5,stride=2", ["drop_per_cut=0.25"], None, ST3(drop_per_cut=0.25, stride=2)),
        ("st3: drop_per_cut = 0.5", [" decay = linear "], None, ST3(drop_per_cut=0.5, decay="linear")),
        ("st3", ["stride=none"], None, ST3(stride=None)),
        ("st3", [], "compact", ST3.preset("compact")),
        ("st3:preset=compact", [], None, ST3.preset("compact")),
        ("st3:preset=compact,stride=2", [], None, ST3(stride=2, drop_per_cut=0.68, decay="constant")),
        ("st3:preset=compact", [], "balanced", ST3()),
        ("st3", ["drop_per_cut=0.4"], "compact", ST3(drop_per_cut=0.4, decay="constant")),
        ("vta", ["floor=0", "horizon=7"], None, VTA(floor=0.0, horizon=7)),
        ("pyramiddrop:layers=3/6,keep=0.5/0.25", [], None, PyramidDrop((3, 6), (0.5, 0.25))),
        ("pyramiddrop", ["layers=4", "keep=0.5"], None, PyramidDrop((4,), (0.5,))),
        ("sparsevlm:variant=plus,positions=none", [], None, SparseVLM(variant="plus")),
        ("sparsevlm:counts=300/1.0/0.5", [], None, SparseVLM(counts=(300, 1.0, 0.5))),
        ("vtc-cls:first_layer=3", [], None, VTCCLS(first_layer=3)),
        ("gsearch:schedule=some/where/s.json", [], None, GSearch("some/where/s.json")),
        ("psigmoid:mean_keep=0.33,kappa=0.5", [], None, PSigmoid(mean_keep=0.33, kappa=0.5)),
        ("fastervlm:keep=0.5 + vta", [], None, compose(FasterVLM(0.5), VTA())),
        ("random+st3:preset=compact", [], None, compose(Random(), ST3.preset("compact"))),
    ],
)
def test_methods_are_built(spec, settings, preset, expected):
    assert parse_method(spec, settings, preset) == expected


@pytest.mark.parametrize(("text", "value"), [("64", 64), ("0.5", 0.5), ("2", 2), ("1.0", 1.0)])
def test_a_budget_without_a_point_is_a_number_of_tokens(text, value):
    keep = parse_method("uniform", [f"keep={text}"]).keep
    assert keep == value
    assert type(keep) is type(value)


@given(
    st.one_of(
        st.builds(Random, keep=st.integers(2, 999), seed=st.integers(0, 9)),
        st.builds(Uniform, keep=st.floats(0.01, 1.0)),
        st.builds(Pool, keep=st.floats(0.01, 1.0)),
        st.builds(PVTP, start_layer=st.none() | st.integers(1, 40), drop_per_cut=st.floats(0, 0.99)),
        st.builds(
            SparseVLM,
            layers=st.just((1, 2)),
            counts=st.tuples(st.integers(1, 99), st.floats(0.01, 1))
            | st.tuples(st.floats(0.5, 1), st.floats(0.01, 0.5)),
        ),
        st.builds(PSigmoid, mean_keep=st.floats(0.1, 1), kappa=st.floats(0.01, 9)),
        st.builds(GSearch, st.none() | st.just("../s.json")),
        st.builds(PyramidDrop, layers=st.just((1, 3, 9)), positions=st.sampled_from(["original", "renumber"])),
        st.builds(
            compose, st.builds(VisPruner, keep=st.floats(0.01, 1)), st.builds(PVTP, drop_per_cut=st.floats(0, 0.99))
        ),
        st.builds(ST3, stride=st.none() | st.integers(1, 9), decay=st.sampled_from(["linear", "exponential"])),
    )
)
def test_printed_methods_can_be_parsed(method):
    assert parse_method(str(method)) == method


@pytest.mark.parametrize(
    ("spec", "settings", "preset", "says"),
    [
        ("stt3", [], None, "did you mean 'st3'?"),
        ("", [], None, "the methods are"),
        ("st3", ["strid=3"], None, "did you mean 'stride'?"),
        ("st3", ["name=x"], None, "'name'"),
        ("st3", ["strid=3"], "compact", "did you mean 'stride'?"),
        ("st3", ["stride=x"], None, "stride=x: must be a whole number or none"),
        ("st3", ["stride=1.5"], None, "must be a whole number or none"),
        ("st3", ["drop_per_cut=lots"], None, "drop_per_cut=lots: must be a number"),
        ("uniform", ["keep=all"], None, "keep=all: must be a number"),
        ("st3", ["drop_per_cut=1.5"], None, "below 1"),
        ("st3", ["drop_per_cut=nan"], None, "below 1"),
        ("st3", ["decay=sine"], None, "must be one of constant"),
        ("uniform", ["keep=0"], None, "from 2 on"),
        ("st3", ["drop_per_cut"], None, "write name=value"),
        ("st3", ["=3"], None, "write name=value"),
        ("st3:drop_per_cut=", [], None, "write name=value"),
        ("st3", [], "tiny", "choose balanced, compact or annealed"),
        ("uniform", [], "compact", "uniform has no presets"),
        ("uniform:preset=compact", [], None, "uniform has no presets"),
        ("sparsevlm", ["layers=2/x"], None, "layers=x: must be a whole number"),
        ("pyramiddrop", ["keep=0.5"], None, "tuple of 3 shares"),
        ("fastervlm+VTA", [], None, "did you mean 'vta'"),
        ("sparsevlm:layers=2,6,15", [], None, "layers=2/6/15"),
        ("fastv+st3", [], None, "both act in the prefill stage"),
        ("fastv+", [], None, "did you mean 'fastv'"),
        ("fastervlm+vta", ["keep=0.5"], None, "could belong to any part"),
        ("fastervlm+vta", [], "compact", "could belong to any part"),
    ],
)
def test_invalid_methods_are_refused(spec, settings, preset, says):
    with pytest.raises(WrongUsageError) as error:
        parse_method(spec, settings, preset)
    assert says in str(error.value)
