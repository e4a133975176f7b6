"""The only code that knows transformers' internals: hooks, attention tap, masks, compaction, cache layers, report."""
