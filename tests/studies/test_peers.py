"""The comparison with peers: sides of two processes take turns on the same weights."""

import json
import sys

import pytest
import torch
from transformers import AutoModelForImageTextToText

import vistrim
from studies.peers import measure
from studies.peers.subjects import IMAGE, Size, save_llava, save_qwen
from vistrim.methods.base.notation import as_method


def test_the_prompt_fits_the_model(tmp_path):
    size = Size(layers=1, hidden=64, side=4)
    assert save_llava(tmp_path, size) == 16
    assert save_qwen(tmp_path, size) == 4
    for name, visual in (("llava", 16), ("language-model", 0), ("qwen", 4)):
        inputs = torch.load(tmp_path / name / "inputs.pt", weights_only=True)
        assert (inputs["input_ids"] == IMAGE).sum() == visual
    lengths = [torch.load(tmp_path / name / "inputs.pt")["input_ids"].shape for name in ("llava", "language-model")]
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize("peer", measure.PEERS)
def test_our_methods_run_on_the_shared_model(peer, tmp_path):
    ours, _ = measure.PEERS[peer](tmp_path, Size(layers=8, hidden=64, side=4), 0.25)
    model = AutoModelForImageTextToText.from_pretrained(ours["model"]).eval()
    inputs = torch.load(f"{ours['model']}/inputs.pt", weights_only=True)
    for method in ours["methods"]:
        with torch.no_grad(), vistrim.trim(model, method) as run:
            model(**inputs)
        visual = int((inputs["input_ids"] == IMAGE).sum())
        assert (run.report.average_tokens < visual) == (as_method(method).stages != ("decode",))


@pytest.mark.slow
def test_both_workers_take_turns(monkeypatch, tmp_path, capsys):
    def itself(folder, size, keep):
        visual = save_llava(folder, size)
        assert visual == 64
        model = {"model": str(folder / "llava")}
        return {**model, "methods": [f"uniform:keep={keep}"]}, ("trimmed", {**model, "methods": []})

    monkeypatch.setitem(measure.PEERS, "kvpress", itself)
    out = tmp_path / "results" / "small.json"
    options = ["--layers", "1", "--hidden", "64", "--side", "8", "--rounds", "2", "--new-tokens", "3", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["measure", "--peer", "kvpress", *options, "--out", str(out)])
    measure.main()
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == ["vistrim: untouched", "vistrim: uniform:keep=0.25", "kvpress: untouched"]
    assert all(len(found) == 2 for found in rows.values())
    ours, trimmed, theirs = (found[0]["kv_bytes"] for found in rows.values())
    # Keys and values of 64 visual and 64 text tokens, and of the generated ones that were processed.
    assert ours == theirs == 2 * (64 + 64 + 2) * 64 * 4
    assert ours - trimmed == 2 * 48 * 64 * 4
    assert out.with_suffix(".md").read_text() in capsys.readouterr().out
