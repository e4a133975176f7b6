"""Invariants of all registered methods."""

from pathlib import Path

import pytest

import vistrim
from tests import tiny
from tests.closeness import close
from tests.methods.every_method import SETTINGS, built
from vistrim.engine import describe
from vistrim.engine.tokens.token_map import TokenMap

STEPS = 3
ROOT = Path(__file__).parents[2]
NAMES = [info.name for info in vistrim.list_methods()]
ORACLES = {
    "blind": "methods/test_newer_against_dense.py",
    "cdpruner": "methods/test_newer_against_dense.py",
    "dart": "methods/test_newer_against_dense.py",
    "divprune": "methods/test_newer_against_dense.py",
    "downsample": "methods/test_newer_against_dense.py",
    "dyvte": "methods/test_dyvte_against_dense.py",
    "fastervlm": "methods/test_against_dense.py",
    "fastv": "methods/test_against_dense.py",
    "gsearch": "methods/test_gsearch_against_dense.py",
    "holov": "methods/test_newer_against_dense.py",
    "hybrid": "methods/base/test_composition.py",
    "pool": "methods/test_input_stage.py",
    "psigmoid": "methods/test_psigmoid_against_dense.py",
    "pvtp": "engine/test_against_oracle.py",
    "pyramiddrop": "methods/test_against_dense.py",
    "quecc": "methods/test_quecc.py",
    "random": "methods/test_input_stage.py",
    "scope": "methods/test_newer_against_dense.py",
    "sgl": "methods/test_sgl_against_dense.py",
    "sparsevlm": "methods/test_against_dense.py",
    "st3": "engine/test_against_oracle.py",
    "uniform": "methods/test_input_stage.py",
    "visionzip": "methods/test_newer_against_dense.py",
    "vispruner": "methods/test_against_dense.py",
    "vscan": "methods/test_newer_against_dense.py",
    "vta": "engine/test_against_oracle.py",
    "vtc-cls": "methods/test_against_dense.py",
    "vtw": "methods/test_against_dense.py",
    "yopo": "methods/test_yopo_against_dense.py",
}
"""The file, in the tests' folder, that compares each method with an independent computation."""

EACH = pytest.mark.parametrize("name", NAMES)


@EACH
def test_is_documented(name):
    """In the README's table, in the documents, and in the changelog."""
    documents = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))]
    assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"`{name}`" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert any(name in words(text) for text in documents)


def words(text: str) -> set[str]:
    """Words, of which a name such as `vtc-cls` is one."""
    return set("".join(c if c.isalnum() or c in "-_" else " " for c in text).split())


@EACH
def test_has_an_oracle(name):
    """It runs the method's class in a test file that has independent rules, and nothing else has an entry here."""
    assert set(ORACLES) == set(SETTINGS) == set(NAMES)
    text = (ROOT / "tests" / ORACLES[name]).read_text(encoding="utf-8")
    assert type(vistrim.get_method(name)).__name__ in words(text)


# The exits of dyvte depend on the prompt, so that it has no numbers in advance.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "dyvte"])
def test_numbers_of_tokens_depend_on_images_only_where_the_method_says_so(name):
    """Otherwise the engine does not count the images of a prompt."""
    method = built(name).fitted(describe(tiny.shared()).facts)
    for layer in method.prefill_layers(tiny.DEPTH):
        one, three = (method.prefill_count(layer, 32, 30, images, tiny.DEPTH) for images in (1, 3))
        assert method.counts_images or one == three


@EACH
def test_selections_are_right_and_a_sample_alone_equals_the_same_in_a_batch(name, monkeypatch):
    model, samples, method = tiny.shared(), tiny.RAGGED, built(name)
    seen = []
    keep = TokenMap.keep

    def spy(tokens, selection):
        seen.append((tokens, selection))
        return keep(tokens, selection)

    monkeypatch.setattr(TokenMap, "keep", spy)
    with vistrim.trim(model, method) as run:
        together = tiny.generate(model, tiny.batch(samples), STEPS)
        report = run.report
        for tokens, selection in seen:
            check(tokens, selection)
        assert seen or method.acting_stages == ("structure",)
        answers = together.sequences[:, tiny.batch(samples)["input_ids"].shape[1] :]
        for b, sample in enumerate(samples):
            alone = tiny.generate(model, tiny.batch([sample]), STEPS)
            assert alone.sequences[0, len(sample.ids) :].tolist() == answers[b].tolist()
            assert close(tiny.logits(together)[b], tiny.logits(alone)[0])
            for ours, whole in zip(of(run.report, 0), of(report, b), strict=True):
                assert ours == whole


def check(tokens, selection):
    kept = selection.keep & tokens.visual
    assert tuple(kept.sum(1).tolist()) == selection.counts
    assert all(0 <= n <= most for n, most in zip(selection.counts, tokens.n_visual, strict=True))
    if selection.merge_into is not None:
        samples, rows = (selection.merge_into >= 0).nonzero(as_tuple=True)
        targets = selection.merge_into[samples, rows]
        assert kept[samples, targets].all()
        assert not kept[samples, rows].any()
        assert tokens.visual[samples, rows].all()


def of(report, b):
    """Figures of a report for one sample; its tokens are distinct, in prompt order, and exist."""
    kept = [(stage.layer, stage.kept[b], stage.merged[b]) for stage in report.stages]
    for _, tokens, merged in kept:
        assert tokens == sorted(set(tokens))
        assert set(merged) <= set(tokens) <= set(range(report.visual_tokens[b]))
    # A stage at which only other samples of the batch lose tokens leaves this one as it was.
    changes, last = [], list(range(report.visual_tokens[b]))
    for layer, tokens, merged in kept:
        if tokens != last or merged:
            changes.append((layer, tokens, merged))
        last = tokens
    return [
        changes,
        [layer[b] for layer in report.visual_tokens_per_layer],
        [layer[b] for layer in report.kv_tokens_per_layer],
    ]
