"""Answers to a file of prompts, in this process or on many machines."""
