"""Metrics and statistics of finished runs. Never imports torch."""
