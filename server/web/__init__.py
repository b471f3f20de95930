"""What all pages share: headers, languages, limits, the request queue, logs."""
