"""Measurements: scripts that write what they found to `results/`."""
