"""What the shipped models are: scenes, tasks, rendering, processor and weights."""
