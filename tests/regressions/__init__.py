"""Regression tests for faults that users reported."""
