"""All types of events that the product knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nexus_agent.protocol.catalogue import box, emissions, scans, vehicle, workshop
from nexus_agent.protocol.catalogue.base import EventData

VERSION: Final = 1

_KINDS: Final[tuple[type[EventData], ...]] = (
    box.HostMetrics,
    box.PluginState,
    box.Loss,
    box.CommandResult,
    box.ConfigReported,
    box.StorageAlarm,
    box.AgentCrashed,
    box.AgentRolledBack,
    vehicle.AdapterState,
    vehicle.AdapterRates,
    vehicle.VehicleIdentified,
    vehicle.TelemetryPid,
    vehicle.TelemetrySignal,
    vehicle.CanTraffic,
    vehicle.ModuleIdentity,
    scans.ScanStarted,
    scans.ScanCompleted,
    scans.ScanDiff,
    scans.DtcObserved,
    scans.DtcDetails,
    scans.DtcCleared,
    emissions.FreezeFrameCaptured,
    emissions.ReadinessSnapshot,
    emissions.CalibrationIds,
    emissions.InUseCounters,
    emissions.MonitorTests,
    vehicle.PowerVoltage,
    vehicle.PowerAlarm,
    vehicle.FlashSession,
    workshop.J1939Fault,
    workshop.BatteryTest,
    workshop.ReportIngested,
)

CATALOGUE: Final[Mapping[str, type[EventData]]] = {kind.type: kind for kind in _KINDS}
"""Type → model of its data."""
