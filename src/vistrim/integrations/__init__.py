"""Plug-ins for other projects. Each needs an extra."""
