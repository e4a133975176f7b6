"""A server on a port, with OpenAI's own client."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import openai
import pytest

from tests.serving.running import NAME, application, eventually, image_url, loaded, message, scene, server
from vistrim.serving.limits import Limits

MODELS = (f"{NAME}:st3", f"{NAME}:fastv", f"{NAME}:untouched")


@pytest.fixture(scope="module")
def app():
    with application(Limits(trace=True)) as made:
        yield made


@pytest.fixture(scope="module")
def client(app):
    with server(app) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def question(number=1):
    return message("describe the image .", image_url(scene(number)))


def test_whole_and_streamed_answers_are_the_same(client):
    asked = {"model": MODELS[1], "messages": question(), "max_tokens": 12, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *parts, last, usage = chunks
    choice = whole.choices[0]
    assert "".join(part.choices[0].delta.content or "" for part in parts) == choice.message.content
    assert last.choices[0].finish_reason == choice.finish_reason
    assert (usage.choices, usage.usage) == ([], whole.usage)
    assert last.vistrim["visual_tokens_per_layer"] == whole.vistrim["visual_tokens_per_layer"]
    streamed = [entry for part in parts if part.choices[0].logprobs for entry in part.choices[0].logprobs.content]
    assert [entry.token for entry in streamed] == [entry.token for entry in choice.logprobs.content]
    assert len(streamed) == whole.usage.completion_tokens
    assert {part.id for part in chunks} == {last.id}


def test_requests_at_the_same_time_get_the_answers_that_they_get_alone(client):
    def answer(case):
        model, number, settings = case
        given = {"model": model, "messages": question(number), "max_tokens": 8, "stream": True} | settings
        return "".join(
            chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**given) if chunk.choices
        )

    settings = ({}, {"seed": 4, "temperature": 1.2}, {"stop": "small"})
    cases = [(model, number, extra) for model in MODELS for number, extra in zip((1, 2, 3), settings, strict=True)]
    with ThreadPoolExecutor(len(cases)) as pool:
        assert list(pool.map(answer, cases)) == [answer(case) for case in cases]


def test_several_turns_and_a_trace(client):
    turns = [
        {"role": "system", "content": "answer"},
        *question(),
        {"role": "assistant", "content": "a star"},
        {"role": "user", "content": "what color is the star ?"},
    ]
    answer = client.chat.completions.create(
        model=NAME, messages=turns, extra_body={"vistrim": {"method": "divprune:keep=9", "trace": True}}
    )
    [sample] = answer.vistrim["trace"]["samples"]
    assert sample["visual_tokens"] == 144
    assert len(answer.vistrim["kv_bytes_per_step"]) == answer.usage.completion_tokens


def test_errors_have_the_classes_of_the_client(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=question())
    with pytest.raises(openai.BadRequestError, match="tools"):
        client.chat.completions.create(model=NAME, messages=question(), tools=[{"type": "function"}])
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(
            model=NAME, messages=question(), extra_body={"vistrim": {"method": "sgl:guide=x"}}
        )


@pytest.fixture
def slow_steps():
    """Steps so slow that the description of an image takes longer than a client waits."""
    hook = loaded()[0].register_forward_pre_hook(lambda *_: time.sleep(0.05))
    yield
    hook.remove()


def test_the_end_is_logged_with_the_requests_in_progress(monkeypatch, slow_steps):
    logged = []
    monkeypatch.setattr("vistrim.serving.server.log.info", lambda line, *parts: logged.append(line % parts))
    body = {"model": NAME, "messages": question(), "stream": True, "max_tokens": 20}
    with ExitStack() as stack:
        with application() as made, server(made) as url:
            answer = stack.enter_context(httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60))
            lines = answer.iter_lines()
            next(lines)
        assert list(lines)[-2:] == ["data: [DONE]", ""]
    assert logged == ["stopping: 1 request in progress, at the latest in 15 s", "stopped"]


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_goes_ends_its_answer(app, client, streams, slow_steps):
    body = {"model": MODELS[2], "messages": question(), "stream": streams, "max_tokens": 500}
    gone = f'outcome="cancelled"}} {1.0 + (not streams)}'
    url = str(client.base_url)
    if streams:
        with httpx.stream("POST", f"{url}chat/completions", json=body, timeout=60) as answer:
            next(answer.iter_raw())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}chat/completions", json=body, timeout=httpx.Timeout(60, read=0.3))
    metrics = url.replace("/v1/", "/metrics")
    assert eventually(lambda: gone in httpx.get(metrics).text)
    assert eventually(lambda: f'vistrim_requests_running{{model="{NAME}"}} 0.0' in httpx.get(metrics).text)
    assert client.models.list().data
