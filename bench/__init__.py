"""Measurements: showwork against the stock loops, against TRL, and against the machine's limits."""
