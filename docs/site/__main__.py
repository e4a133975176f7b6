"""``python -m docs.site``: write everything that mkdocs reads into ``build/docs``."""

import shutil
from importlib.metadata import metadata
from pathlib import Path

from docs.site import commands, methods, notebooks
from docs.site.pages import ROOT, stage

OUT = ROOT / "build" / "docs"
HERE = Path(__file__).parent


def main() -> None:
    """Write the pages and the settings of mkdocs."""
    shutil.rmtree(OUT, ignore_errors=True)
    pages = OUT / "pages"
    urls = dict(url.split(", ", 1) for url in metadata("vistrim").get_all("Project-URL") or ())
    made = {**methods.pages(), **notebooks.pages(), "docs/reference/commands.md": commands.page()}
    stage(pages, made, urls.get("Repository"))
    shutil.copy(HERE / "style.css", pages / "style.css")
    settings = (HERE / "mkdocs.yml").read_text(encoding="utf-8")
    entries = "\n".join(f"      - {name}: methods/{name}.md" for name in methods.names())
    settings = settings.replace("      - METHODS", entries)
    for key, name in (("repo_url", "Repository"), ("site_url", "Documentation")):
        settings += f"{key}: {urls[name]}\n" if name in urls else ""
    (OUT / "mkdocs.yml").write_text(settings, encoding="utf-8")


main()
