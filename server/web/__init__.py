"""What every page shares: headers, languages, limits, the request queue, logs."""
