"""The demo page and the regions of images, without a browser."""

import base64
import re
from io import BytesIO

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from PIL import Image

from tests.serving.running import IMAGES, application, image_url, message, scene
from tests.serving.test_http import Client, client, refusal
from vistrim.serving.demo_page import static_files
from vistrim.serving.limits import Limits

TRACED = Limits(trace=True)


@pytest.fixture(scope="module")
def demo():
    with client(limits=TRACED, demo=True) as made:
        yield made


def texts(*kinds):
    return {path: body.decode() for path, (body, kind) in static_files().items() if kind.partition(";")[0] in kinds}


def test_each_file_has_its_type_and_may_load_from_this_server_only(demo):
    files = static_files()
    assert {"/demo", "/demo/main.js", "/demo/style.css"} <= files.keys()
    for path, (body, kind) in files.items():
        answer = demo("GET", path)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, body, kind)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy.pop("default-src") == "'self'"
        assert policy.pop("img-src") == "'self' data: blob:"
        assert set(policy.values()) == {"'none'"}
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_files_name_no_other_host_and_no_missing_file():
    for path, text in texts("text/html", "text/css", "text/javascript").items():
        hosts = set(re.findall(r"https?://[^\s\"'`]+", text))
        assert hosts <= {"http://www.w3.org/2000/svg"}, path
    files = static_files().keys()
    for path, text in texts("text/javascript").items():
        assert {f"/demo/{name}" for name in re.findall(r'from "\./([^"]+)"', text)} <= files, path
    page = static_files()["/demo"][0].decode()
    assert {f"/{name}" for name in re.findall(r'(?:href|src)="(demo/[^"]+)"', page)} <= files
    # The policy forbids them.
    assert not re.search(r"<style|style=|<script>|\son\w+=", page)


def test_examples_are_those_of_the_source_tree():
    for path, (body, kind) in static_files().items():
        if kind in {"image/png", "image/webp"}:
            # Formats differ in size, not in pixels.
            source = Image.open((IMAGES / path.rpartition("/")[2]).with_suffix(".png"))
            assert Image.open(BytesIO(body)).convert("RGB").tobytes() == source.convert("RGB").tobytes()


def test_scripts_use_elements_of_the_page():
    page = static_files()["/demo"][0].decode()
    known = set(re.findall(r'id="([\w-]+)"', page))
    used = {name for text in texts("text/javascript").values() for name in re.findall(r'byId\("([\w-]+)"\)', text)}
    assert used
    assert used <= known
    assert set(re.findall(r'(?:for|list)="([\w-]+)"', page)) <= known


def test_without_the_option_there_is_no_page():
    with client() as plain:
        assert plain("GET", "/demo").status_code == 404
        assert (
            plain("POST", "/v1/vistrim/regions", json={"messages": message("", image_url(scene(1)))}).status_code == 404
        )


def test_the_page_needs_no_key_but_the_model_does():
    with client(limits=TRACED, demo=True, api_key="secret") as made:
        assert made("GET", "/demo").status_code == 200
        refusal(made("GET", "/demo/about.json"), 401)
        refusal(made("POST", "/v1/vistrim/regions", json={}), 401)
        about = made("GET", "/demo/about.json", headers={"authorization": "Bearer secret"}).json()
        assert about["layers"] > 0
        assert about["parameters"] > 1e5


def test_regions_are_the_processed_images_with_the_cells_of_their_tokens(demo):
    # A wide image: what the model sees is not what was sent.
    wide = Image.new("RGB", (300, 100), "white")
    wide.paste(scene(1).resize((100, 100)), (100, 0))
    sent = message("what is this", image_url(scene(2)), image_url(wide))
    regions = demo("POST", "/v1/vistrim/regions", json={"messages": sent}).json()["regions"]
    assert [region["name"] for region in regions] == ["image 1", "image 2"]
    answer = demo.chat(sent, vistrim={"method": "fastv", "trace": True}).json()["vistrim"]
    groups = answer["trace"]["samples"][0]["groups"]
    assert [[region["rows"], region["columns"]] for region in regions] == [group["grid"] for group in groups]
    tokens = [token for region in regions for token in region["tokens"]]
    assert tokens == list(range(answer["visual_tokens"]))
    for region in regions:
        shown = Image.open(BytesIO(base64.b64decode(region["image"].partition(",")[2])))
        assert shown.size == (region["width"], region["height"])
    assert regions[1]["width"] == regions[1]["height"]


def test_regions_refuse_what_the_chat_refuses(demo):
    def ask(body):
        return demo("POST", "/v1/vistrim/regions", json=body)

    assert ask({"messages": message("no image")}).json() == {"regions": []}
    refusal(ask({"messages": []}), 400)
    refusal(ask({"messages": message("a", "https://example.org/a.png")}), 400)
    refusal(ask({"messages": message("a", image_url(scene(1))), "trace": {}}), 400)


def test_a_model_without_grids_has_no_regions(monkeypatch):
    def fails(*_):
        raise ValueError("/secret")

    monkeypatch.setattr("vistrim.serving.regions.regions_of", fails)
    with application(limits=TRACED) as app:
        answer = Client(app)("POST", "/v1/vistrim/regions", json={"messages": message("a", image_url(scene(1)))})
    assert "/secret" not in refusal(answer, 400, "no_regions")
