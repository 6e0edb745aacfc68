"""Pure state machines of checkpoint and restart, and the service that drives them."""
