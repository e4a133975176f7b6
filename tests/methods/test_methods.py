"""Methods: registry, parameters, and the properties of each."""

import dataclasses
import inspect
import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from vistrim import (
    PVTP,
    ST3,
    VTA,
    VTW,
    FastV,
    Pool,
    PyramidDrop,
    Random,
    SparseVLM,
    Uniform,
    get_method,
    list_methods,
    trim,
)
from vistrim.engine import describe
from vistrim.methods.base.cuts import Cuts
from vistrim.methods.base.method import Method
from vistrim.methods.base.notation import parse_method
from vistrim.methods.base.per_image import ImageTokens
from vistrim.methods.base.registry import find_method, register
from vistrim.methods.base.renamed import RENAMED
from vistrim.methods.base.stage_inputs import LayerTokens
from vistrim.methods.fitted_st3 import FittedST3
from vistrim.methods.pool import smaller_grid


def test_every_method_is_listed_and_can_be_built_by_name():
    names = [info.name for info in list_methods()]
    assert names == sorted(names)
    assert {"st3", "pvtp", "vta", "random", "uniform", "pool"} <= set(names)
    for info in list_methods():
        method = get_method(info.name)
        assert isinstance(method, Method)
        assert dataclasses.is_dataclass(method)
        assert info.summary
        assert info.source
        assert set(info.stages) <= {"input", "structure", "prefill", "decode"}
        assert info.parameters == {f.name: f.default for f in dataclasses.fields(method)}
        assert str(method).startswith(info.name)
        with pytest.raises(dataclasses.FrozenInstanceError):
            method.name = "other"


def test_former_names_of_parameters_name_the_present_ones():
    """In the constructor, by name and in the notation; the constructor's signature stays its own."""
    for name, names in RENAMED.items():
        cls = find_method(name)
        known = [field.name for field in dataclasses.fields(cls)]
        assert list(inspect.signature(cls).parameters) == known
        for old, new in names.items():
            assert new.split(",")[0] in known
            message = f"{name}: the parameter {old} is now {re.escape(new)}"
            with pytest.raises(TypeError, match=message):
                cls(**{old: 0.5})
            with pytest.raises(ValueError, match=message):
                get_method(name, **{old: 0.5})
            with pytest.raises(ValueError, match=message):
                parse_method(f"{name}:{old}=0.5")
            with pytest.raises(ValueError, match=message):
                parse_method(name, {old: "0.5"})


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean 'uniform'\?"):
        get_method("uniforn")
    with pytest.raises(ValueError, match=r"did you mean 'drop_per_cut'\?"):
        get_method("st3", drop_per_cuts=0.3)
    with pytest.raises(ValueError, match="the methods are"):
        get_method("xxxxxxxx")
    with pytest.raises(ValueError, match="two methods are called 'st3': ST3 of vistrim and Other of tests"):

        @register
        @dataclasses.dataclass(frozen=True)
        class Other(ST3):
            name = "st3"

    assert register(ST3) is ST3


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("st3", {"drop_per_cut": 1.0}, "drop_per_cut"),
        ("st3", {"drop_per_cut": -0.1}, "drop_per_cut"),
        ("st3", {"start_layer": 0}, "at least 1"),
        ("st3", {"stride": 0}, "stride"),
        ("st3", {"horizon": 0}, "horizon"),
        ("st3", {"floor": 1.1}, "floor"),
        ("st3", {"interval": 0}, "interval"),
        ("st3", {"decay": "cubic"}, "linear"),
        ("st3", {"decode_rows": "last"}, "token, answer, prompt"),
        ("vta", {"spread": 1.5}, "spread"),
        ("vta", {"floor": (0.5, 1.5)}, "floor"),
        ("random", {"keep": 0}, "keep"),
        ("uniform", {"keep": 1.2}, "keep"),
        ("pool", {"keep": 0.0}, "keep"),
        ("fastervlm", {"keep": 0}, "keep=0"),
        ("fastervlm", {"positions": "fresh"}, "original or renumber"),
        ("vispruner", {"important": 1.5}, "important"),
        ("vtc-cls", {"first_layer": -1}, "first_layer"),
        ("fastv", {"layer": 0}, "at least 1"),
        ("fastv", {"keep": 1.1}, "up to 1.0"),
        ("vtw", {"layer": 0}, "at least 1"),
        ("vtw", {"positions": None}, "original or renumber"),
        ("fastv", {"layer": 2.5}, "whole number"),
        ("vtc-cls", {"first_layer": 0.0}, "whole number"),
        ("pyramiddrop", {"keep": (0.5,)}, "tuple of 3 shares"),
        ("pyramiddrop", {"keep": 0.5}, "tuple of 3 shares"),
        ("pyramiddrop", {"layers": [1, 2, 3]}, "tuple of whole numbers"),
        ("sparsevlm", {"layers": 2}, "tuple of whole numbers"),
        ("sparsevlm", {"layers": (0.5, 1.5, 2.5)}, "tuple of whole numbers"),
        ("pyramiddrop", {"keep": (0.25, 0.5, 0.1)}, "must be non-increasing"),
        ("pyramiddrop", {"keep": (1.5, 0.5, 0.1)}, "between 0 and 1"),
        ("pyramiddrop", {"layers": (0, 2, 3)}, "from 1 on"),
        ("pyramiddrop", {"layers": (3, 2, 4)}, "that rise"),
        ("pyramiddrop", {"layers": (), "keep": ()}, "that rise"),
        ("sparsevlm", {"variant": "2.0"}, "1.5, 1.0, plus"),
        ("sparsevlm", {"mean_keep": 100}, "192, 128, 96, 64 .*take counts"),
        ("sparsevlm", {"variant": "1.0", "mean_keep": 96}, "192, 128, 64"),
        ("sparsevlm", {"variant": "1.0", "counts": (1, 2, 3, 4)}, "remove counts"),
        ("sparsevlm", {"counts": (1, 2)}, "2 counts for 3 layers"),
        ("sparsevlm", {"counts": (0, 2, 3)}, "from 1 on"),
        ("sparsevlm", {"counts": (10, 20, 5)}, "must be non-increasing"),
        ("sparsevlm", {"counts": (0.5, 0.2, 0.3)}, "must be non-increasing"),
        ("sparsevlm", {"counts": (0.5, 1.2, 3)}, "up to 1.0"),
        ("sparsevlm", {"layers": (2, 2, 3)}, "that rise"),
        ("sparsevlm", {"positions": "new"}, "original or renumber"),
        ("hybrid", {"keep": 1.5}, "keep"),
    ],
)
def test_values_out_of_range(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        get_method(name, **parameters)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (FastV(5), "layer=5, but the model has 5 decoder layers"),
        (VTW(), "choose a smaller layer"),
        (PVTP(start_layer=9), "choose a smaller start_layer"),
        (ST3(start_layer=9), "choose a smaller start_layer"),
        (PyramidDrop((1, 2, 5)), "choose smaller ones"),
        (SparseVLM(), "choose layers between 0 and 3"),
        (SparseVLM(layers=(0, 1, 4)), "choose layers between 0 and 3"),
    ],
)
def test_layers_that_the_decoder_does_not_have(method, message):
    with pytest.raises(ValueError, match=message):
        trim(tiny.shared(), method)


def test_a_pyramid_scales_with_the_depth():
    assert PyramidDrop().prefill_layers(32) == (8, 16, 24)
    assert PyramidDrop().prefill_layers(40) == (10, 20, 30)
    with pytest.raises(ValueError, match="set layers"):
        trim(tiny.build(num_hidden_layers=3), PyramidDrop())


def test_presets():
    assert ST3.preset("balanced") == ST3()
    assert not ST3.preset("compact").acts_in_decode
    assert ST3().acts_in_decode
    with pytest.raises(ValueError, match="balanced, compact or annealed"):
        ST3.preset("fast")


def test_st3_is_its_two_halves():
    depth, n = 12, 144
    st3, pvtp, vta = ST3(floor=0.0), PVTP(), VTA(floor=0.0)
    assert [st3.tokens_kept(n, layer, 0, depth) for layer in range(depth)] == [
        pvtp.tokens_kept(n, layer, 0, depth) for layer in range(depth)
    ]
    assert [st3.tokens_kept(n, 0, t, depth) for t in range(200)] == [
        vta.tokens_kept(n, 0, t, depth) for t in range(200)
    ]
    assert st3.prefill_layers(depth) == pvtp.prefill_layers(depth) == (1, 6, 11)
    assert ST3().prefill_layers(32) == (1, 15, 29)
    assert vta.prefill_layers(depth) == ()


@given(
    st.integers(1, 8),
    st.integers(1, 6),
    st.floats(0, 0.95),
    st.sampled_from(["constant", "linear", "cosine", "exponential"]),
)
def test_schedule_falls_with_depth_and_steps(start, stride, ratio, decay):
    method = ST3(start, stride, ratio, decay, horizon=16, floor=0.1, interval=1)
    grid = [[method.tokens_kept(97, layer, t, 12) for layer in range(12)] for t in range(20)]
    assert grid[0][0] == 97
    for row in grid:
        assert row == sorted(row, reverse=True)
    for layer in zip(*grid, strict=True):
        assert list(layer) == sorted(layer, reverse=True)


def test_interval():
    method = VTA("linear", 8, 0.0, interval=3)
    due = [t for t in range(1, 13) if method.decode_counts(0, t, (16,), (16,), 4) is not None]
    assert due == [3, 6, 9, 12]
    assert VTA("constant").decode_counts(0, 5, (16,), (16,), 4) is None


@given(st.integers(1, 4), st.integers(1, 16))
def test_prefill_selection_keeps_the_most_attended(layer, held):
    method = PVTP(1, 1, 0.3)
    scores = torch.rand(1, 20, generator=torch.Generator().manual_seed(layer * 100 + held))
    visual = torch.zeros(1, 20, dtype=torch.bool)
    visual[0, 2 : 2 + held] = True
    tokens = LayerTokens(scores, visual, (held,), (16,), 5)
    selection = method.select_prefill(layer, tokens)
    wanted = min(held, method.tokens_kept(16, layer, 0, 5))
    if selection is None:
        assert wanted == held
    else:
        assert selection.counts == (wanted,)
        kept, gone = scores[selection.keep], scores[visual & ~selection.keep]
        assert not len(kept) or not len(gone) or kept.min() >= gone.max()


@given(st.integers(1, 600), st.integers(2, 700), st.integers(0, 5))
def test_random_keeps_distinct_tokens_and_is_seeded(n, keep, seed):
    chosen = Random(keep, seed).choose(ImageTokens(0, n, (1, n))).keep
    assert len(set(chosen.tolist())) == len(chosen) == min(n, keep)
    assert torch.equal(chosen, Random(keep, seed).choose(ImageTokens(0, n, (1, n))).keep)


def test_random_differs_by_seed_and_image():
    choices = [Random(20, s).choose(ImageTokens(i, 576, (24, 24))).keep.tolist() for s in (0, 1) for i in (0, 1)]
    assert len(set(map(tuple, choices))) == 4


@given(st.integers(1, 600), st.integers(2, 700))
def test_uniform_is_even(n, keep):
    chosen = Uniform(keep).choose(ImageTokens(0, n, (1, n))).keep.tolist()
    assert len(set(chosen)) == len(chosen) == min(n, keep)
    assert chosen == sorted(chosen)
    gaps = [b - a for a, b in pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    # As far from the start as from the end.
    assert abs(chosen[0] - (n - 1 - chosen[-1])) <= 1


@given(st.integers(1, 30), st.integers(1, 30), st.integers(2, 900))
def test_pool_covers_the_image(rows, columns, keep):
    n = rows * columns
    choice = Pool(keep).choose(ImageTokens(0, n, (rows, columns)))
    kept = set(choice.keep.tolist())
    assert len(kept) == len(choice.keep) <= min(n, keep)
    into = choice.merge_into.tolist()
    for token in range(n):
        assert (into[token] == -1) if token in kept else (into[token] in kept)


def test_pool_grid():
    assert smaller_grid(24, 24, 144) == (12, 12)
    assert smaller_grid(24, 24, 64) == (8, 8)
    assert smaller_grid(12, 12, 1) == (1, 1)
    with pytest.raises(ValueError, match="24 x 24"):
        Pool().choose(ImageTokens(0, 577, (24, 24)))


def test_floors_of_layers_and_rows_that_rank_while_decoding():
    method = parse_method("vta:floor=0.4/0.2/0,decode_rows=answer")
    assert method == VTA(floor=(0.4, 0.2, 0.0), decode_rows="answer")
    assert str(method) == "vta:decay=cosine,horizon=256,floor=0.4/0.2/0.0,interval=8,decode_rows=answer"
    assert parse_method(method.to_dict()["method"]) == method
    # Named only where they are set: the notations in earlier results stay the same.
    assert not {"decode_rows", "spread", "schedule"} & set(re.split("[,:=]", f"{VTA()}+{ST3()}"))
    facts = describe(tiny.shared()).facts
    with pytest.raises(ValueError, match="floor has 3 shares: give one for each of the 5 decoder layers"):
        ST3(floor=method.floor).fitted(facts)
    assert method.with_share(0.8, facts).floor == pytest.approx((0.8, 0.4, 0.0))
    assert VTA().with_share(0.8, facts) == VTA(floor=0.8)
    assert [method.tokens_kept(100, layer, 256, 3) for layer in range(3)] == [40, 20, 0]
    cuts = Cuts((1, 2, 3), (0.5, 0.25, 0.125))
    found = FittedST3(cuts, VTA(floor=(0.5,) * 5, decode_rows="prompt", spread=0.5), 5).fitted(facts)
    assert found.evicts_by == "prompt"
    assert found.remark.endswith(
        "annealed by all text after the image instead of the current token, 50% of the tokens left by annealing evenly "
        "spaced, floors of annealing per layer"
    )
