"""Connections to other projects. Each needs an extra."""
