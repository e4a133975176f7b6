"""The guide model, a second model that answers first. Imported only if a method needs it."""
