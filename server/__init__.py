"""The web study: its pages, database, recruiting, payments and rehearsal."""
