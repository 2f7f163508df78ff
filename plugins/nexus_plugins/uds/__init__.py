"""The uds plugin: what a vehicle's control units say over UDS, on CAN and through DoIP gateways."""

from nexus_plugins.uds.plugin import UdsPlugin

__all__ = ["UdsPlugin"]
