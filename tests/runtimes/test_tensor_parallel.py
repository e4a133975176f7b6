"""Tensor parallelism in two processes that talk over gloo: both keep the tokens that a single process keeps."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from transformers.distributed import DistributedConfig

from tests import guides, tiny
from tests.closeness import close
from tests.families.zoo import shared
from tests.runtimes.shared_heads import METHODS, do
from vistrim import SGL, UnsupportedModelError, trim

RANKED = ("st3", "pyramiddrop", "sparsevlm", "sparsevlm-plus")
JOBS = {
    "llava": [
        *((method, mode) for method in RANKED for mode in ("one", "padded")),
        ("st3", "two turns"),
        ("st3", "beams"),
        ("fastervlm", "padded"),
        ("vtw", "padded"),
    ],
    "qwen2_5_vl": [*((method, "padded") for method in RANKED), ("st3", "two turns")],
    "gemma3": [("st3", "padded"), ("sparsevlm", "one")],
    "internvl": [("st3", "padded"), ("sparsevlm-plus", "one")],
}
REFUSED = {"llava": ["yopo-window", "yopo-ffn"]}
PROCESSES = 2


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each process found."""
    folder = tmp_path_factory.mktemp("sharded")
    for name in JOBS:
        shared(name).save_pretrained(folder / name)
    torch.save([(name, jobs, REFUSED.get(name, [])) for name, jobs in JOBS.items()], folder / "jobs.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(PROCESSES)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.runtimes.shared_heads", str(folder)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        errors = [process.communicate(timeout=600)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * PROCESSES, "\n".join(errors)
    return [torch.load(folder / f"found-{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "job"), [(name, job) for name, jobs in JOBS.items() for job in range(len(jobs))])
def test_it_equals_a_single_process(ranks, name, job):
    expected = do(shared(name), name, *JOBS[name][job])
    for found in ranks:
        sharded = found[name][0][job]
        assert sharded["kept"] == expected["kept"]
        assert close(sharded["found"], expected["found"])
        # Each process holds the keys and values of its own heads.
        assert [(PROCESSES * held, PROCESSES * full) for held, full in sharded["bytes"]] == expected["bytes"]
    assert torch.equal(ranks[0][name][0][job]["found"], ranks[1][name][0][job]["found"])


@pytest.mark.slow
def test_cuts_inside_the_layers_are_refused(ranks):
    for found in ranks:
        for message in found["llava"][1]:
            assert "tensor parallelism" in message
            assert "device_map" in message


@pytest.mark.parametrize(
    ("sizes", "way"),
    [({"pp_size": 2}, "pipeline"), ({"ep_size": 2, "tp_size": 2}, "expert"), ({"fsdp_size": 2}, "FSDP")],
)
def test_other_ways_to_share_a_model_are_refused(sizes, way):
    model = tiny.build()
    model._device_mesh, model.config.distributed_config = object(), DistributedConfig(**sizes)
    with pytest.raises(UnsupportedModelError, match=f"{way}.*DistributedConfig"):
        trim(model, METHODS["st3"])


def test_a_model_that_was_sharded_by_hand_is_refused():
    model = tiny.build()
    # As distributed tensors have them.
    model.get_decoder().layers[0].self_attn.q_proj.weight.placements = ()
    with pytest.raises(UnsupportedModelError, match=r"by hand.*DistributedConfig"):
        trim(model, METHODS["st3"])


def test_guides_are_refused(monkeypatch):
    model, guide = tiny.build(), guides.build()
    for sharded, match in ((model, "uses a guide model"), (guide, "guide model with tensor parallelism")):
        with monkeypatch.context() as patch:
            patch.setattr("vistrim.engine.engine.find_group", lambda m, sharded=sharded: m if m is sharded else None)
            patch.setattr(
                "vistrim.engine.guide.guide.find_group", lambda m, sharded=sharded: m if m is sharded else None
            )
            with pytest.raises(UnsupportedModelError, match=match):
                trim(model, SGL(guide))


def test_a_tower_whose_heads_are_shared_cannot_be_read(monkeypatch):
    model = tiny.build()
    monkeypatch.setattr("vistrim.engine.engine.find_group", lambda model: model)
    trim(model, METHODS["fastervlm"])
    model.model.vision_tower.encoder.layers[0].self_attn.q_proj.weight.placements = ()
    with pytest.raises(UnsupportedModelError, match=r"fastervlm reads the vision tower.*tensor parallelism"):
        trim(model, METHODS["fastervlm"])
