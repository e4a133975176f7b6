"""Cuts inside the layers. Imported only if a method needs them."""
