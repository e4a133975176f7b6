"""Throughput of the server."""
