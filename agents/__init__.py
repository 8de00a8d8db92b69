"""Learning VLM policies in `pixel_env`: warm start, then curiosity-driven RL."""
