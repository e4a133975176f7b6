"""Results of studies, and the other committed files, name no folders of the machine that made them."""

import json
import re
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from studies.record import ROOT, record

FOLDERS = (
    "studies",
    "docs",
    "notebooks",
    "training",
    "src",
    "packages",
    "examples",
    "README.md",
    "CHANGELOG.md",
    "Makefile",
)
MACHINE = re.compile(rb"(?<![\w.])/(?:work|home|tmp|root|Users)/")


def test_settings_hold_no_folders_of_the_machine(tmp_path):
    out = tmp_path / "results.json"
    folder, model = ROOT / "studies" / "rows", str(tmp_path / "llava")
    record(Namespace(out=out, folder=folder, model=model, method=["st3"], layers=8))
    found = json.loads(out.read_text())["settings"]
    expected = {"out": "results.json", "folder": "studies/rows", "model": "llava", "method": ["st3"], "layers": 8}
    assert found == expected


def test_no_committed_file_names_a_folder_of_a_machine():
    listed = subprocess.run(["git", "ls-files", "-z", *FOLDERS], cwd=ROOT, capture_output=True, check=False)
    names = [name for name in listed.stdout.decode().split("\0") if (ROOT / name).is_file() and name]
    if not names:
        pytest.skip("needs the git repository")
    assert not [name for name in names if _names_a_folder(ROOT / name)]


def _names_a_folder(path: Path) -> bool:
    content = path.read_bytes()
    # Weights and images may contain these bytes by chance.
    return b"\0" not in content and MACHINE.search(content) is not None
