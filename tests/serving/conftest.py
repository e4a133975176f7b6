"""The server needs the packages of the extra `serve`, and its tests those of `dev`."""

from importlib.util import find_spec

if any(find_spec(package) is None for package in ("fastapi", "uvicorn", "prometheus_client", "openai", "httpx")):
    collect_ignore_glob = ["test_*.py"]
