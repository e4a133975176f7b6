"""Cache layers that can evict tokens, with spare room for new ones, and their installation in a cache."""
