"""README and docs: links lead somewhere, commands exist, code runs, and nothing is missing on the site."""

import re
import shlex
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command

import vistrim
from docs.site import commands, methods, notebooks
from docs.site.pages import place, relinked, stage
from vistrim.cli.app import app

ROOT = Path(__file__).parents[1]
SETTINGS = (ROOT / "docs" / "site" / "mkdocs.yml").read_text(encoding="utf-8")
FOLDERS = (
    "docs",
    "notebooks",
    "examples",
    "docker",
    "packages",
    "training",
    "studies",
    "src/vistrim/reference/weights",
)
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
GUIDES = [page for page in PAGES if page.parent == ROOT or "docs" in page.relative_to(ROOT).parts]

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TESTED_ELSEWHERE = {
    "CONTRIBUTING.md": "tests/test_contributing.py",
    "docs/guides/check.md": "tests/checking",
    "docs/guides/serving.md": "tests/integrations/test_serving_examples.py",
    "docs/guides/vllm.md": "tests/integrations/test_vllm.py",
}
ASKED = re.compile(r'"type": "text", "text": "([^"]+)"')
OPENS_IMAGE = re.compile(r'(?:"path": |open\()"examples/images/')
SLOW = {"docs/guides/calibration.md"}


def name(page):
    return page.relative_to(ROOT).as_posix()


@cache
def read(page):
    return page.read_text(encoding="utf-8")


def blocks(page, language):
    return [code for found, code in BLOCK.findall(read(page)) if found == language]


def words(text):
    """Lower-case words: tokenizers may write spaces before periods."""
    return " ".join(re.findall(r"\w+", text.lower()))


@cache
def anchors(page):
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(BLOCK, "", read(page)), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_to_files_and_headings():
    broken = []
    # The pages of the reference are for the site, as are the pages that it makes.
    made = {(ROOT / "docs" / page).resolve() for page in ("methods/index.md", "reference/commands.md")}
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)", re.sub(BLOCK, "", read(page))):
            there = (page.parent / target).resolve() if target else page
            if ":" in target or (there in made and page.parent.name == "reference"):
                continue
            if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
                broken.append(f"{name(page)}: {target}{'#' + anchor if anchor else ''}")
    assert broken == []


def test_pages_that_the_code_names_exist():
    sources = [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)]
    sources += [ROOT / "Makefile", ROOT / "pyproject.toml"]
    named = {found for path in sources for found in re.findall(r"\bdocs/[\w/-]+\.md\b", read(path))}
    made = {"docs/reference/commands.md", *methods.pages()}
    assert named
    assert not [page for page in named - made if not (ROOT / page).exists()]


def test_every_page_is_in_the_navigation_of_the_site(tmp_path):
    made = {**methods.pages(), **notebooks.pages(), "docs/reference/commands.md": commands.page()}
    stage(tmp_path, made)
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.md")}
    listed = set(re.findall(r"[\w/-]+\.md", SETTINGS.split("nav:\n")[-1])) | {
        f"methods/{info.name}.md" for info in vistrim.list_methods()
    }
    assert listed == {path for path in there if not path.startswith("repository/")}


def test_links_are_rewritten_for_the_site():
    text = "[a](../glossary.md#cut) [b](../../studies/README.md) [c](../../Makefile) ![d](../images/demo.png)\n"
    page, linked = relinked(f"{text}```\n{text}```\n", "docs/guides/x.md", {}, None)
    assert (
        page.splitlines()[0]
        == "[a](../glossary.md#cut) [b](../repository/studies/README.md) c ![d](../images/demo.png)"
    )
    assert page.count(text) == 1
    assert linked == ["docs/glossary.md", "studies/README.md", "docs/images/demo.png"]
    assert "[c](https://host/x/blob/main/Makefile)" in relinked(text, "docs/guides/x.md", {}, "https://host/x")[0]
    assert place("CHANGELOG.md") == "changelog.md"
    with pytest.raises(ValueError, match=r"missing\.md, which does not exist"):
        relinked("[a](missing.md)", "docs/guides/x.md", {}, None)


def test_every_public_name_is_in_the_reference():
    reference = "".join(read(page) for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
    documented = set(re.findall(r"^::: [\w.]+\.(\w+)$", reference, flags=re.MULTILINE))
    documented |= {type(vistrim.get_method(info.name)).__name__ for info in vistrim.list_methods()}
    # Types, and the page of a whole module.
    documented |= {"Positions", "ModelLoader", *(each for each in vars(vistrim.errors) if each.endswith("Error"))}
    assert {*vistrim.__all__, *vistrim.methods.__all__} - documented == set()


def test_the_attributes_that_the_guide_to_methods_lists_exist():
    guide = read(ROOT / "docs" / "guides" / "write-a-method.md")
    for view in (vistrim.methods.ImageTokens, vistrim.methods.ImageChoice):
        table = guide.split(f"| of `{view.__name__}` |")[1].split("\n\n")[0]
        listed = [found for row in table.splitlines() for found in re.findall(r"`(\w+)", row.split(" | ")[0])]
        known = {field.name for field in fields(view)} | vars(view).keys()
        assert listed
        assert set(listed) <= known


def command_lines():
    for page in GUIDES:
        for block in blocks(page, "console"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("$ vistrim "):
                    yield name(page), line


def test_commands_have_the_options_that_pages_show():
    lines = list(command_lines())
    assert len(lines) > 30
    for page, line in lines:
        words, command = shlex.split(line, comments=True)[2:], get_command(app)
        while hasattr(command, "commands"):
            assert words[0] in command.commands, (page, line)
            command, words = command.commands[words[0]], words[1:]
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
        given = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= known, (page, line)
        needed = [each for each in command.params if each.required and each.param_type_name == "option"]
        assert all(given & set(each.opts) for each in needed), (page, line)


def test_examples_on_reference_models_use_their_schedules():
    plain = re.compile(r"--method st3( |$)")
    other_model = re.compile(r"--model (?!reference)|serve (?!reference)\w")
    closed = [found for found in command_lines() if plain.search(found[1]) and not other_model.search(found[1])]
    loads = [(name(page), code) for page in PAGES for code in blocks(page, "python") if 'load("reference' in code]
    assert closed == []
    assert loads
    assert not [page for page, code in loads if 'trim(model, "st3")' in code]


def test_the_guide_to_serving_lists_every_option():
    table = read(ROOT / "docs" / "guides" / "serving.md").split("## Options\n")[1].split("\n## ")[0]
    options = [each.opts[0] for each in get_command(app).commands["serve"].params if each.param_type_name == "option"]
    assert [option for option in options if f"`{option}" not in table] == []


@pytest.fixture(scope="module")
def reference():
    return vistrim.load("reference", device="cpu")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name(page), marks=[pytest.mark.slow] * (name(page) in SLOW))
        for page in GUIDES
        if name(page) not in TESTED_ELSEWHERE and blocks(page, "python")
    ],
)
def test_code_runs(page, reference, tmp_path, monkeypatch, capsys):
    """The blocks of a page run one after another, on `reference` in place of larger models, and print answers alone."""
    from vistrim.methods.base import registry
    from vistrim.reference.items import items

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(vistrim, "load", lambda *_, **__: reference)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "mine.jsonl").write_text(
        '{"image": "examples/images/scene-1.png", "prompt": "What color is the star?", "answer": "red"}\n'
    )
    model, processor = reference
    question = [{"type": "image"}, {"type": "text", "text": "What color is the star?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
    image = Image.open(ROOT / "examples" / "images" / "scene-3.png")
    space = {
        "__name__": "page",
        "json": __import__("json"),
        "vistrim": vistrim,
        "model": model,
        "processor": processor,
        "inputs": processor(images=image, text=prompt, return_tensors="pt"),
        "items": items("color", "validation", "full", 2),
    }
    for code in blocks(page, "python"):
        exec(compile(code, name(page), "exec"), space)
        printed = words(capsys.readouterr().out)
        assert not [asked for asked in ASKED.findall(code) if words(asked) in printed]


@pytest.mark.parametrize("page", [page for page in GUIDES if OPENS_IMAGE.search(read(page))], ids=name)
def test_code_away_from_the_source_tree_names_the_image_that_is_missing(page, reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vistrim, "load", lambda *_, **__: reference)
    code = next(code for code in blocks(page, "python") if OPENS_IMAGE.search(code))
    with pytest.raises(FileNotFoundError, match="examples/images"):
        exec(compile(code, name(page), "exec"), {})
