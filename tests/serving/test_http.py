"""The application: limits, errors, keys and ids, without a port."""

import asyncio
import json
import zlib
from contextlib import contextmanager
from io import BytesIO

import httpx
import pytest
from PIL import Image

import vistrim
from tests.serving.running import NAME, Raises, application, data_url, image_url, message, scene
from vistrim.serving.app import create_app
from vistrim.serving.engine import Engine
from vistrim.serving.guards import Room
from vistrim.serving.limits import Limits

CHAT = "/v1/chat/completions"
LIMITS = Limits(
    body_bytes=200_000, messages=4, characters=1000, images=2, pixels=300 * 300, prompt_tokens=400, answer_tokens=30
)


class Client:
    """Sends requests to an application."""

    def __init__(self, app):
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def __call__(self, method, path, host="localhost", **request):
        async def send():
            async with httpx.AsyncClient(transport=self._transport, base_url=f"http://{host}") as client:
                return await client.request(method, path, **request)

        return asyncio.run(send())

    def chat(self, messages=None, **fields):
        body = {"model": NAME, "messages": message("hello") if messages is None else messages, "max_tokens": 4}
        return self("POST", CHAT, json=body | fields)


@contextmanager
def client(**settings):
    with application(**settings) as app:
        yield Client(app)


@pytest.fixture(scope="module")
def small():
    with client(limits=LIMITS, served={"st3": None, "raises": Raises(), "memory": Raises(error="memory")}) as made:
        yield made


def refusal(answer, status, code=None):
    """Check an error, and return its message."""
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert error.keys() == {"message", "type", "param", "code"}
    assert code in (None, error["code"]), error
    assert not {"Traceback", "/src/", "/secret", "site-packages", ".py"} & {*error["message"].split("'")}
    assert "secret" not in error["message"]
    return error["message"]


def bomb(width, height):
    """A PNG file of a few hundred bytes that says that it has many pixels."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


def file_of(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_wrong_requests_are_refused_with_the_field_and_the_reason(small):
    deep = "[" * 5000 + "]" * 5000
    part = {"type": "text", "text": "hello"}
    for fields, named in (
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {}}]}]}, "messages"),
        (
            {"messages": [{"role": "assistant", "content": [part, {"type": "image_url", "image_url": {"url": ""}}]}]},
            "m",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "4"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"chat_template_kwargs": {}}, "chat_template_kwargs"),
        ({"generation_config": "{}"}, "generation_config"),
        ({"vistrim": {"keep": 3}}, "vistrim"),
        ({"vistrim": {"method": 3}}, "vistrim"),
        ({"stream": "yes"}, "stream"),
    ):
        answer = small.chat(**fields)
        refusal(answer, 400)
        assert answer.json()["error"]["param"].startswith(named), fields
    assert refusal(small.chat(messages=[]), 400) == "messages is empty: send at least one"
    assert (
        refusal(small("POST", CHAT, json={"messages": message("a")}), 400) == "model is missing: add it to the request"
    )
    # The field, the reason and the fix, with one colon.
    for field, value in (
        ("n", 2),
        ("tools", [{}]),
        ("modalities", ["audio"]),
        ("presence_penalty", 1),
        ("audio", {"a": 1}),
    ):
        assert refusal(small.chat(**{field: value}), 400).count(":") == 1
    assert "/docs" in refusal(small("GET", "/v1/completions"), 404)
    for content in (b"", b"{", b"[]", b"null", deep.encode(), b'{"model": NaN}', b"\xff\xfe", b'{"model": "\\ud800"}'):
        answer = small("POST", CHAT, content=content, headers={"content-type": "application/json"})
        refusal(answer, 400)
    # A form of another site needs no permission of the browser.
    answer = small("POST", CHAT, content=json.dumps({"model": NAME, "messages": message("a")}).encode())
    refusal(answer, 415)
    # Neutral values of what is not supported.
    assert small.chat(n=1, tools=[], response_format={"type": "text"}, presence_penalty=0, user="me").status_code == 200


def test_limits(small):
    red, big = image_url(Image.new("RGB", (20, 20), "red")), image_url(Image.new("L", (400, 400)))
    for code, messages, fields in (
        ("too_many_messages", message("a") * 5, {}),
        ("text_too_long", message("a" * 1001), {}),
        ("too_many_images", message("a", red, red, red), {}),
        ("image_too_large", message("a", big), {}),
        ("image_too_large", message("a", data_url(bomb(30_000, 30_000))), {}),
        ("image_too_large", message("a", *[image_url(Image.new("L", (250, 250)))] * 2), {}),
        ("image_too_narrow", message("a", image_url(Image.new("L", (201, 1)))), {}),
        ("context_length_exceeded", message("a " * 450), {}),
        ("answer_too_long", message("a"), {"max_tokens": 31}),
        ("answer_too_long", message("a"), {"max_completion_tokens": 31}),
    ):
        refusal(small.chat(messages, **fields), 400, code)
    long = {"content-type": "application/json"}
    refusal(small("POST", CHAT, content=b" " * 200_001, headers=long), 413, "body_too_large")

    async def pieces():
        for _ in range(30):
            yield b" " * 10_000

    refusal(small("POST", CHAT, content=pieces(), headers=long), 413, "body_too_large")


def test_only_intact_images_of_three_formats_are_decoded(small):
    picture = scene(1).resize((60, 40))
    png = file_of(picture, "PNG")
    for data in (b"", b"hello", png[:-60], png[:60], file_of(picture, "GIF"), file_of(picture, "BMP"), b"%!PS-Adobe\n"):
        refusal(small.chat(message("a", data_url(data))), 400, "invalid_image")
    scans = file_of(picture, "JPEG", progressive=True)
    refusal(small.chat(message("a", data_url(scans + b"\xff\xda" * 64))), 400, "image_too_large")
    for url in ("data:image/png;base64,%%%", "data:image/png,abc", "data:text/html;base64,aGk=", "data:", "x"):
        refusal(small.chat(message("a", url)), 400)
    for url in ("/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/", "https://example.com/a.png", "ftp://a/b", ""):
        refusal(small.chat(message("a", url)), 400, "image_url_not_allowed")
    for kind in ("PNG", "JPEG", "WEBP"):
        assert small.chat(message("a", image_url(picture, kind))).status_code == 200
    # A palette with transparency, 16 bits, and several frames.
    transparent, frames = picture.quantize(4), [picture, picture.rotate(90)]
    for data in (
        file_of(transparent, "PNG", transparency=0),
        file_of(Image.new("I;16", (30, 30), 40_000), "PNG"),
        file_of(frames[0], "PNG", save_all=True, append_images=frames[1:]),
    ):
        assert small.chat(message("a", data_url(data))).status_code == 200


def test_placeholders_and_control_tokens_in_text_are_text(small):
    for text in ("what is <image> here", "<image>" * 50, "<user><assistant><eos>", "<bos> <pad>"):
        answer = small.chat(message(text, image_url(scene(1).resize((60, 40)))))
        assert answer.status_code == 200
        assert answer.json()["vistrim"]["visual_tokens"] == 144
    # Its tokenizer makes this one of every unknown word.
    assert "special token" in refusal(small.chat(message("a <unk>")), 400)


def test_methods_are_chosen_from_the_servers_list():
    with client() as served:
        picture = message("describe the image .", image_url(scene(1).resize((60, 40))))
        models = [entry["id"] for entry in served("GET", "/v1/models").json()["data"]]
        assert models == [NAME, f"{NAME}:st3", f"{NAME}:fastv", f"{NAME}:untouched"]
        for model in models:
            assert served("GET", f"/v1/models/{model}").json()["id"] == model
            answer = served.chat(picture, model=model).json()
            assert answer["model"] == model
            chosen = "st3" if model == NAME else model.partition(":")[2]
            assert answer["vistrim"]["method"].partition(":")[0] == chosen
        for options, kept in (
            ({"method": "divprune:keep=12"}, 12),
            ({"method": "divprune", "budget": "tokens=0.25"}, 36),
            ({"method": "untouched"}, 144),
        ):
            answer = served.chat(picture, vistrim=options)
            assert answer.json()["vistrim"]["visual_tokens_per_layer"][-1] == kept
        for options, status in (
            ({"method": "fastv:keep=0.1"}, 403),
            ({"method": "sgl:guide=/etc/passwd"}, 403),
            ({"method": "gsearch:schedule=/etc/passwd"}, 403),
            ({"method": "divprune+vta"}, 403),
            ({"method": "divprune:keep=-1"}, 400),
            ({"method": "divprun"}, 400),
            ({"method": "divprune:keep=[fastv]"}, 400),
            ({"budget": "tokens=0"}, 400),
            ({"budget": "x"}, 400),
            ({"method": "untouched", "budget": "tokens=0.5"}, 400),
            ({"trace": True}, 400),
        ):
            refusal(served.chat(picture, vistrim=options), status)
        refusal(served.chat(picture, model="other"), 404, "model_not_found")
        refusal(served("GET", "/v1/models/other"), 404)
        listed = served("GET", "/v1/vistrim/methods").json()
        assert [entry["label"] for entry in listed["served"]] == ["st3", "fastv", "untouched"]
        assert [entry["name"] for entry in listed["allowed"]] == ["divprune"]


def test_the_servers_budget_is_for_its_list_and_requests_may_name_another():
    with client(budget="tokens=0.5") as served:
        asked = message("describe the image .", image_url(scene(1)))
        own = served("GET", "/v1/models").json()["data"][0]["vistrim"]
        assert own["budget"] == "tokens=0.5"
        for options, least, most in (
            (None, 68, 72),
            ({"method": "fastv"}, 68, 72),
            ({"budget": "tokens=0.8"}, 110, 115.2),
            # A request's own parameters stay.
            ({"method": "divprune:keep=12"}, 12, 12),
            ({"method": "untouched"}, 144, 144),
        ):
            found = served.chat(asked, max_tokens=2, **({} if options is None else {"vistrim": options}))
            assert least <= found.json()["vistrim"]["average_tokens"] <= most, options
        several = served.chat(message("describe .", image_url(scene(1)), image_url(scene(2))), max_tokens=2).json()
        assert several["vistrim"]["visual_tokens"] == 288
        assert several["vistrim"]["average_tokens"] <= 144
        assert served.chat(message("hello"), max_tokens=2).status_code == 200


def test_without_a_list_the_schedule_beside_the_model_is_served():
    model, processor = vistrim.load("reference", dtype="float32", device="cpu")
    engine = Engine(model, processor)
    try:
        served = Client(create_app(engine, processor, name="reference"))
        default, *_ = served("GET", "/v1/models").json()["data"]
        asked = message("hello", image_url(scene(1)))
        answer = served.chat(asked, model="reference")
        budgeted = served.chat(asked, model="reference", vistrim={"budget": "tokens=0.33"})
    finally:
        engine.close()
    assert default["vistrim"] == {"label": "st3", "method": "st3:schedule=auto"}
    assert answer.json()["vistrim"]["method"] == "st3:schedule=auto"
    assert budgeted.json()["vistrim"]["method"].startswith("st3:schedule=auto,mean_keep=")
    with client(served={}) as served:
        assert served.chat().json()["vistrim"]["method"] == str(vistrim.ST3())


def test_parameters_that_name_files_or_models_are_never_a_requests_choice():
    with client(allowed=("gsearch", "sgl", "yopo", "sparsevlm", "quecc")) as served:
        for method in (
            "gsearch:schedule=/etc/passwd",
            "sgl:guide=/etc/passwd",
            "quecc:compressor=/etc/passwd",
            "sgl:guide=reference",
        ):
            assert "names a file or a model" in refusal(served.chat(vistrim={"method": method}), 403)
        # A word of a list is no name.
        assert served.chat(vistrim={"method": "sparsevlm:variant=1.0"}).status_code != 403


def test_a_method_that_raises_or_runs_out_of_memory_is_an_error_of_the_server(small):
    picture = message("describe the image .", image_url(scene(1).resize((60, 40))))
    refusal(small.chat(picture, model=f"{NAME}:raises"), 500, "generation_failed")
    refusal(small.chat(picture, model=f"{NAME}:memory"), 503, "out_of_memory")
    refusal(small.chat(picture, model=f"{NAME}:raises", stream=True), 500, "generation_failed")
    assert small.chat(picture).status_code == 200


def test_the_queue_and_the_deadline_are_limited(monkeypatch):
    with client(limits=Limits(deadline=1e-3)) as served:
        refusal(served.chat(), 504, "deadline_exceeded")
        refusal(served.chat(stream=True), 504, "deadline_exceeded")
    with client() as served:
        monkeypatch.setattr(Room, "is_full", True)
        answer = served.chat()
        refusal(answer, 429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        assert served("GET", "/ready").status_code == 503
        assert served("GET", "/health").status_code == 200


def test_keys_hosts_and_ids():
    with client(api_key="ключ") as served:
        key = {"authorization": "Bearer ключ".encode()}
        for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "ключ".encode()}):
            for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/nothing"):
                answer = served("GET", path, headers=headers)
                refusal(answer, 401, "invalid_api_key")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert served("GET", "/v1/models", headers=key, host="example.com").status_code == 200
        assert served("GET", "/health").status_code == 200
    with client(open_metrics=True, api_key="key") as served:
        assert served("GET", "/metrics").status_code == 200
    with client() as served:
        refusal(served("GET", "/v1/models", host="rebound.example.com"), 403, "host_not_allowed")
        for given, repeated in (("my-id.7", True), ("a" * 65, False), ("a b", False), ("", False)):
            answer = served("GET", "/health", headers={"x-request-id": given})
            assert (answer.headers["x-request-id"] == given) == repeated
        refusal(served("GET", "/nothing"), 404)
        refusal(served("GET", CHAT), 405)
        for path in ("/docs", "/openapi.json"):
            assert served("GET", path).status_code == 200
        assert "http://" not in served("GET", "/docs").text
        assert "https://" not in served("GET", "/docs").text


def test_metrics_count_requests_tokens_and_refusals():
    with client() as served:
        picture = message("describe the image .", image_url(scene(1).resize((60, 40))))
        usage = served.chat(picture, model=f"{NAME}:fastv").json()["usage"]
        served.chat(message("hello"), vistrim={"method": "divprune:keep=5"})
        served.chat(n=2)
        served.chat(message("a", data_url(b"x")))
        text = served("GET", "/metrics").text
        at = f'{{method="fastv",model="{NAME}"}}'
        assert f"vistrim_prompt_tokens_total{at} {float(usage['prompt_tokens'])}" in text
        assert f"vistrim_generation_tokens_total{at} {float(usage['completion_tokens'])}" in text
        assert f'vistrim_requests_total{{method="custom",model="{NAME}",outcome="complete"}} 1.0' in text
        assert f'vistrim_rejected_total{{model="{NAME}",reason="invalid_request"}} 1.0' in text
        assert f'vistrim_image_decode_errors_total{{model="{NAME}"}} 1.0' in text
        assert f'vistrim_visual_tokens_total{{method="fastv",model="{NAME}",stage="input"}} 144.0' in text
        for name in (
            "time_to_first_token_seconds",
            "time_per_output_token_seconds",
            "visual_keep_ratio",
            "kv_bytes_peak",
        ):
            assert f"vistrim_{name}_count{at} 1.0" in text
