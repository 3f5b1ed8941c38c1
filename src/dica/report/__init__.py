"""The HTML report: pages, runs, the rule graph."""
