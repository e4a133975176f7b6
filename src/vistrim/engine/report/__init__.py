"""Recording a generation, and the report as plain data."""
