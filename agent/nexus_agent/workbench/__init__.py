"""What authors of plugins work with: `nexus plugin new`, `check` and `run`."""
