"""The page of the API at ``/docs``, without scripts and without files of other hosts."""

import json
from html import escape

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><body><h1>{title}</h1>
<p>Machine-readable: <a href="openapi.json">openapi.json</a></p>{paths}<h2>Schemas</h2>{schemas}</body></html>"""


def add_reference(app: FastAPI) -> None:
    """Add the page to an application."""

    @app.get("/docs", include_in_schema=False)
    async def reference() -> HTMLResponse:
        schema = app.openapi()
        paths = "".join(
            f"<h2><code>{escape(verb.upper())} {escape(path)}</code></h2><p>{escape(entry.get('description', ''))}</p>"
            for path, verbs in schema["paths"].items()
            for verb, entry in verbs.items()
        )
        schemas = "".join(
            f"<details><summary><code>{escape(name)}</code></summary><pre>{escape(json.dumps(entry, indent=2))}</pre>"
            "</details>"
            for name, entry in schema.get("components", {}).get("schemas", {}).items()
        )
        page = _PAGE.format(title=escape(schema["info"]["title"]), paths=paths, schemas=schemas)
        return HTMLResponse(page, headers={"content-security-policy": "default-src 'none'"})
