"""The example plugin: the smallest that is useful."""

from nexus_plugins.example.plugin import ExamplePlugin, ExampleSettings

__all__ = ["ExamplePlugin", "ExampleSettings"]
