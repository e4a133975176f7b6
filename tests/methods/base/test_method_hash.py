"""Answers of methods that are written alike but made of other files or guides are not mixed."""

import json
from dataclasses import make_dataclass

import pytest
import torch

from tests import tiny
from tests.cli.checkpoint import build_processor
from tests.methods.dyvte_weights import random_routers, save
from vistrim import SGL, ST3, DyVTE, GSearch, Uniform, compose
from vistrim.architectures import discover
from vistrim.errors import ResumeError
from vistrim.evaluation import Records, answer_all
from vistrim.methods.base.method_hash import method_hash
from vistrim.reference.items import items

SMALL = {"num_hidden_layers": 2}


def schedule(path, last):
    rates = [1.0, *[last] * (tiny.DEPTH - 1)]
    content = {"format": 1, "method": "gsearch", "model": "", "layers": tiny.DEPTH, "rates": rates, "rows": "last"}
    path.write_text(json.dumps(content))
    return GSearch(str(path))


def test_contents_count_and_notation_alone_does_not(tmp_path):
    facts = discover(tiny.shared()).facts
    first = method_hash(schedule(tmp_path / "s.json", 0.5), facts)
    assert method_hash(schedule(tmp_path / "s.json", 0.5), facts) == first
    assert method_hash(schedule(tmp_path / "s.json", 0.25), facts) != first

    routers = [method_hash(DyVTE(save(tmp_path / "r.safetensors", random_routers(seed))), facts) for seed in (0, 0, 1)]
    assert routers[0] == routers[1] != routers[2]
    composed = [
        method_hash(compose(Uniform(0.5), DyVTE(save(tmp_path / "r.safetensors", random_routers(s)))), facts)
        for s in (0, 1)
    ]
    assert composed[0] != composed[1]

    guides = [tiny.build(seed=seed, **SMALL) for seed in (1, 1, 2)]
    told = [method_hash(SGL(guide), facts) for guide in guides]
    assert told[0] == told[1] != told[2]
    assert len({str(SGL(guide)) for guide in guides}) == 1
    assert method_hash(ST3(drop_per_cut=0.3), facts) != method_hash(ST3(drop_per_cut=0.4), facts)


def test_a_parameter_that_is_added_later_leaves_hashes_as_they_are():
    facts = discover(tiny.shared()).facts
    parameters = {"start_layer": 1, "stride": 1, "drop_per_cut": 0.5, "decay": "linear", "horizon": 9}
    parameters |= {"floor": 0.5, "interval": 2}
    # As in a version without the others.
    earlier = make_dataclass("ST3", parameters)
    earlier.fitted = lambda self, model: self
    assert method_hash(ST3(**parameters), facts) == method_hash(earlier(**parameters), facts)
    assert method_hash(ST3(**parameters, spread=0.5), facts) != method_hash(ST3(**parameters), facts)


def test_a_folder_with_answers_from_another_file_is_refused(tmp_path):
    model, processor = tiny.shared(), build_processor()
    asked = items("color", "test", "several", 2)

    def run(last, folder="results"):
        method = schedule(tmp_path / "s.json", last)
        with Records(tmp_path / folder, {}) as records:
            answer_all(model, processor, {"gsearch": method}, asked, records, max_new_tokens=2)

    run(0.5)
    run(0.5)
    with pytest.raises(ResumeError, match="files and guide of gsearch"):
        run(0.25)
    run(0.25, "another")


def test_two_guides_that_are_written_alike_are_not_one_method(tmp_path):
    model, processor = tiny.shared(), build_processor()
    asked = items("color", "test", "several", 1)
    methods = {name: SGL(tiny.build(seed=seed, **SMALL)) for seed, name in enumerate("ab", 1)}
    with torch.no_grad(), pytest.raises(ResumeError, match="files and guide of sgl"):
        answer_all(model, processor, methods, asked, Records(None, {}), max_new_tokens=2)
