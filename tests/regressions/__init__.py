"""Faults that users met, each as the right value of what went wrong."""
