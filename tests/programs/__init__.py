"""Programs that must survive checkpoint and restart, and the oracles over what they print."""
