"""The shared parts of all pages: headers, languages, limits, the request queue, logs."""
