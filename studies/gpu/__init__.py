"""Correctness, speed and a profile on one CUDA device."""
