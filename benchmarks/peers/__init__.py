"""Other people's ways to get events from a box to a fleet, measured beside ours in one run."""
