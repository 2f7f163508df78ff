"""The local HTTP API on the agent's Unix socket."""
