"""The report: results, methods text and the page."""
