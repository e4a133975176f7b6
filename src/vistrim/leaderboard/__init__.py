"""Results of several runs and tools on one page."""
