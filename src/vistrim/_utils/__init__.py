"""Helpers for all packages: files, tables, units, labels, progress and the environment."""
