"""The clients of examples/serving against a server."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from tests.serving.running import NAME, application, server

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "serving"
STUB = """
export default class OpenAI {
  constructor({ baseURL, apiKey }) {
    const headers = { "content-type": "application/json", authorization: `Bearer ${apiKey}` };
    this.models = { list: async () => (await fetch(`${baseURL}/models`, { headers })).json() };
    this.chat = { completions: { create: async (body) => {
      const request = { method: "POST", headers, body: JSON.stringify(body) };
      const answer = await fetch(`${baseURL}/chat/completions`, request);
      if (!answer.ok) throw new Error(await answer.text());
      const events = (await answer.text()).split("\\n\\n").map((event) => event.replace("data: ", ""));
      return events.filter((event) => event.startsWith("{")).map((event) => JSON.parse(event));
    } } };
  }
}
"""
"""What the example needs of the client, which is no package of Python."""


@pytest.fixture(scope="module")
def environment():
    with application() as app, server(app) as url:
        yield os.environ | {"VISTRIM_URL": f"{url}/v1", "VISTRIM_MODEL": NAME}


def output(command, environment, folder=None):
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package"), [("openai_client.py", "openai"), ("langchain_client.py", "langchain_openai")]
)
def test_python(environment, name, package):
    if find_spec(package) is None:
        pytest.skip(f"needs {package}")
    printed = output([sys.executable, EXAMPLES / name], environment)
    assert printed.strip()
    assert ("visual tokens per layer" in printed) == (package == "openai")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(environment):
    assert '"method":"st3:' in output(["bash", EXAMPLES / "chat.sh"], environment)


@pytest.mark.parametrize(("language", "command"), [("python", sys.executable), ("bash", "bash")])
def test_the_guide(environment, language, command):
    if language == "python" and find_spec("openai") is None:
        pytest.skip("needs openai")
    if language == "bash" and shutil.which("curl") is None:
        pytest.skip("needs curl")
    guide = (ROOT / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
    code = guide.split(f"```{language}\n")[1].split("```")[0]
    code = code.replace("llava-1.5-7b-hf", NAME).replace("http://127.0.0.1:8000/v1", environment["VISTRIM_URL"])
    assert NAME in code
    assert "144" in output([command, "-c", code], environment, ROOT)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_javascript(environment, tmp_path):
    package = tmp_path / "node_modules" / "openai"
    package.mkdir(parents=True)
    (package / "index.mjs").write_text(STUB)
    (package / "package.json").write_text('{"name": "openai", "exports": "./index.mjs"}')
    shutil.copy(EXAMPLES / "openai_client.mjs", tmp_path)
    image = str(EXAMPLES.parent / "images" / "scene-1.png")
    assert "visual tokens per layer" in output(["node", "openai_client.mjs", image], environment, tmp_path)
