"""Measurements on hardware that the tests do not have, and their results."""
