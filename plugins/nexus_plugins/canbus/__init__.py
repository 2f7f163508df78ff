"""CAN channels for the plugins that read them; no plugin itself."""
