"""The model of lmms-eval that answers with a trimmed model."""
