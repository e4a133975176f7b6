"""``vistrim leaderboard``: one page of several folders, in which protocols never mix."""

import json
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from tests.cli.invoke import error_line, vistrim
from vistrim.evaluation.entries import ENTRIES, Entry, read_entries, write_entries
from vistrim.leaderboard.boards import boards_of
from vistrim.leaderboard.plot import plot

VERSIONS = {"vistrim": "1.0", "transformers": "5.24.0"}
PROTOCOL = {"tool": "vistrim eval", "task": "color", "questions": "ab", "metric": "exact_match", "max_new_tokens": 16}
FIRST = Entry(
    protocol=PROTOCOL, model="m<x>", method="untouched", score=0.8, items=10, tokens=16.0, flops=1.0, kv=1.0,
    versions=VERSIONS, commit="c0ffee",
)  # fmt: skip
TRIMMED = replace(FIRST, method="uniform:keep=4", budget="tokens=0.25", score=0.6, tokens=4.0, flops=0.3, kv=0.5)


@pytest.fixture
def folders(tmp_path):
    other = PROTOCOL | {"max_new_tokens": 32}
    contents = {
        "a": [FIRST, TRIMMED],
        "b": [replace(FIRST, protocol=other, score=0.9)],
        "c": [replace(TRIMMED, method="st3", score=0.7), replace(TRIMMED, score=0.5)],
        "d": [replace(FIRST, protocol={"tool": "vistrim batch", "task": "data"}, score=None, flops=None)],
    }
    for name, entries in contents.items():
        (tmp_path / name).mkdir()
        write_entries(tmp_path / name, entries)
        assert read_entries(tmp_path / name) == entries
    return [str(tmp_path / name) for name in contents]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("ending", ["md", "html"])
def test_folders_become_one_page(folders, tmp_path, ending):
    out = tmp_path / "pages" / f"all.{ending}"
    result = vistrim("leaderboard", *folders, "--out", str(out), "--json")
    assert result.exit_code == 0, result.stderr
    boards = json.loads(result.stdout)
    assert [[(e["method"], e["score"]) for e in board["entries"]] for board in boards] == [
        [("untouched", 0.8), ("st3", 0.7), ("uniform:keep=4", 0.5)],
        [("untouched", 0.9)],
        [("untouched", None)],
    ]
    page = out.read_text()
    assert "all.png" in page
    assert out.with_suffix(".png").exists()
    for text in ("87.5 %", "62.5 %", "tokens=0.25", "1.0 c0ffee", "max_new_tokens 32"):
        assert text in page
    assert ("m<x>" in page) == (ending == "md")


def test_a_result_is_compared_with_the_untouched_model_of_its_versions():
    old = VERSIONS | {"vistrim": "0.9"}
    others = [replace(FIRST, score=0.9, versions=old), replace(FIRST, score=0.95, items=9, commit="f00d")]
    (board,) = boards_of([*others, FIRST, TRIMMED])
    assert [row[4] for row in board.table().rows if row[0] == TRIMMED.method] == ["75.0 %"]
    (board,) = boards_of([*others, TRIMMED])
    assert [row[4] for row in board.table().rows if row[0] == TRIMMED.method] == ["66.7 %"]


def test_scores_above_one_are_no_percentages(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: figures.append(figure))
    (board,) = boards_of([replace(FIRST, score=1412.3), replace(TRIMMED, score=0.4, kv=None)])
    assert [row[3] for row in board.table().rows] == ["1412.3", "0.4"]
    assert plot([board], tmp_path / "plot.png")
    axes = figures[0].axes
    assert {one.get_ylabel() for one in axes} == {"score"}
    # The trimmed result has no place in the last panel.
    assert [len(one.lines) for one in axes] == [2, 2, 1]
    assert len(axes[-1].get_legend().get_texts()) == 2


def test_folders_without_results_are_named(tmp_path):
    result = vistrim("leaderboard", str(tmp_path), "--out", str(tmp_path / "p.md"))
    assert result.exit_code == 2
    assert f"has no {ENTRIES}" in error_line(result)
    for content, says in (
        ("{", "not valid JSON"),
        ('{"schema": 0}', "schema 1"),
        ('{"schema": 1, "entries": [{}]}', "incomplete"),
    ):
        (tmp_path / ENTRIES).write_text(content)
        assert says in error_line(vistrim("leaderboard", str(tmp_path)))


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("page", "has no ending of a page: name it .md or .html"),
        ("page.txt", "has no ending of a page"),
        ("a", "is a folder: name a page in it, such as"),
        ("a/leaderboard.json/page.md", "is a file: give a folder"),
    ],
)
def test_pages_that_cannot_be_written_are_refused_before_any_file(folders, tmp_path, out, says):
    before = sorted(tmp_path.rglob("*"))
    result = vistrim("leaderboard", *folders, "--out", str(tmp_path / out))
    assert result.exit_code == 2
    assert says in error_line(result)
    assert sorted(tmp_path.rglob("*")) == before


def test_results_of_lmms_eval_are_rows_too(tmp_path):
    content = {
        "config": {
            "model": "vistrim",
            "model_args": 'pretrained=reference,method="uniform:keep=4",budget=tokens=0.5,batch_size=2',
        },
        "results": {"gqa": {"exact_match,none": 0.5, "exact_match_stderr,none": 0.1, "alias": "gqa"}},
        "throughput": {"avg_visual_tokens_per_layer": 4.0, "avg_kv_share": 0.5},
        "n-samples": {"gqa": {"effective": 30}},
    }
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "1_results.json").write_text(json.dumps(content))
    result = vistrim("leaderboard", str(tmp_path), "--out", str(tmp_path / "p.md"), "--json")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    ((entry,),) = [board["entries"] for board in json.loads(result.stdout)]
    assert (entry["score"], entry["tokens"], entry["kv"], entry["budget"]) == (0.5, 4, 0.5, "tokens=0.5")
    assert entry["method"].startswith("uniform:keep=4")
    assert entry["protocol"] == {"tool": "lmms-eval", "task": "gqa", "metric": "exact_match", "items": 30}
