"""What feeds events into each contestant, in its own process and through its own front door."""
