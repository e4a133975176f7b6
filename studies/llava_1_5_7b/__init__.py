"""Accuracy of every method on LLaVA-1.5-7B and the benchmarks of the papers, with lmms-eval."""
