"""The documentation site: pages for mkdocs, made from ``docs/``, the registry of methods and the commands."""
