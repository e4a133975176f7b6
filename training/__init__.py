"""Training of the shipped models. Not part of the installed package."""
