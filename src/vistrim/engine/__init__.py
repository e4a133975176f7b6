"""The only code that knows transformers' internals: hooks, attention, masks, compaction, cache layers, report."""
