"""The database: models, engine, sessions, migrations and backups."""
