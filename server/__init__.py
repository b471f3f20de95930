"""What a listener and a researcher meet: the web study, its database, its rehearsal."""
