"""Files, processes and the console: what knows nothing of NetHack."""
