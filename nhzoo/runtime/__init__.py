"""Files, worker processes and the console, independent of NetHack."""
