"""The way to the broker, below MQTT: TCP, proxy, TLS and WebSocket. For agent and console."""

from nexus_agent.transport.dialer import Dialer, dial_with, ping_overdue
from nexus_agent.transport.opening import TransportError

__all__ = ["Dialer", "TransportError", "dial_with", "ping_overdue"]
