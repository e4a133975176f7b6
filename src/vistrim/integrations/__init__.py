"""Connections to other packages, each of which is optional."""
