"""Faults that were found by use, each with the right value."""
