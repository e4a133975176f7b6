"""The study for one CUDA device, run without one."""

import json
from argparse import Namespace

import pytest
import torch

from studies.gpu import correctness, run
from studies.gpu.profiling import _union
from studies.gpu.results import read


def test_intervals_that_overlap_count_once():
    assert _union([(5, 7), (0, 2), (1, 3), (1, 2)]) == 5
    assert _union([]) == 0


@pytest.mark.slow
def test_a_part_that_hangs_is_killed_and_the_next_one_runs(monkeypatch, tmp_path, capfd):
    folder = tmp_path / "studies" / "gpu"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder):
        (package / "__init__.py").touch()
    (folder / "correctness.py").write_text("import time\ntime.sleep(60)\n")
    (folder / "headline.py").write_text("import sys\nprint('headline has', sys.argv[1:])\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "PARTS", {"correctness": 1.0, "headline": 1.0})
    monkeypatch.setattr(run, "ENDING", 0.1)
    parts = list(run.PARTS)
    run.run(Namespace(device="cpu", out=tmp_path, seconds=6.0, commit="abc", parts=parts, tiny=True))
    printed = capfd.readouterr().out
    assert "correctness ended with None" in printed
    assert "'--commit', 'abc', '--tiny'" in printed
    assert "headline ended with 0" in printed


def test_correctness_goes_on_behind_a_lost_device(monkeypatch, tmp_path):
    ran = []

    def check(name, device, cells):
        ran.append(name)
        if name == "gemma3":
            raise RuntimeError("CUDA error: device-side assert triggered")
        cells.compared(name, torch.float32, "nothing", float("nan") if name == "internvl" else 0.0, 1.0)

    monkeypatch.setattr(correctness, "check_family", check)
    monkeypatch.setattr(correctness.device_methods, "check", lambda device, cells: None)
    names = ("llava", "gemma3", "internvl")
    with pytest.raises(RuntimeError, match="assert"):
        correctness.run("cpu", tmp_path, 60, None, names)
    correctness.run("cpu", tmp_path, 60, None, names)
    found = read(tmp_path / "correctness.json")
    assert ran == list(names)
    assert [cell["passed"] for cell in found["cells"]] == [True, False]
    assert "assert" in found["families"]["gemma3"]


@pytest.mark.slow
def test_every_check_passes_on_the_processor(tmp_path):
    correctness.run("cpu", tmp_path, 300, None, ("llava", "gemma3"))
    found = json.loads((tmp_path / "correctness.json").read_text())
    assert set(found["families"].values()) == {"done"}
    assert all(cell["passed"] is not False for cell in found["cells"])
