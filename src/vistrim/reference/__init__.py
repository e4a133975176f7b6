"""The shipped models: their scenes, tasks, rendering, processor and weights."""
