"""The demo at ``/demo``: files of this package, without a build step and without files of other hosts."""

from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from vistrim.serving.engine import Engine

PATH = "/demo"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
}
HEADERS = {
    # The images of users and of the API are data URLs.
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def static_files() -> dict[str, tuple[bytes, str]]:
    """Return content and type of each file of the demo, by path on the server."""
    found = {}
    for file in (files("vistrim.serving") / "static").iterdir():
        kind = TYPES.get(file.name[file.name.rfind(".") :])
        if kind is not None:
            found[PATH if file.name == INDEX else f"{PATH}/{file.name}"] = (file.read_bytes(), kind)
    return found


def demo_routes(engine: Engine, name: str) -> tuple[APIRouter, set[str]]:
    """Return the paths of the demo, and those that need no API key.

    Parameters
    ----------
    engine : Engine
        Has the model that the demo describes.
    name : str
        Name of the model in model ids.
    """
    router, content = APIRouter(include_in_schema=False), static_files()

    def add(path: str, body: bytes, kind: str) -> None:
        @router.get(path)
        async def file() -> Response:
            return Response(body, headers=HEADERS, media_type=kind)

    for path, (body, kind) in content.items():
        add(path, body, kind)

    @router.get(f"{PATH}/about.json")
    async def about() -> dict[str, Any]:
        model = engine.model
        return {
            "model": name,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "layers": engine.spec.decoder_shape.layers,
            "device": model.device.type,
            "dtype": str(model.dtype).removeprefix("torch."),
        }

    return router, set(content)
