"""From responses to tables, tests, figures and the report."""
