"""Classical RL in `pixel_env`: numbers in place of text, and PPO."""
