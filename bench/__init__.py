"""Measurements: showwork against the stock loops, against TRL, and against what the machine can do."""
