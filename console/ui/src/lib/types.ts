// What /api/v1 answers, as far as the page reads it (docs/reference/console-api.md).

export type Quality = "ok" | "absent" | "refused" | "malformed";
export type Stream = "alert" | "event" | "telemetry" | "log";
export type Role = "admin" | "operator" | "user" | "viewer";

export interface Session {
  user: string | null;
  role: Role | null;
}

export interface Device {
  id: string;
  status: "online" | "offline" | "stale";
  reason: string | null;
  since: string;
  last_seen: string;
  interval: number | null;
  agent: string | null;
  hostname: string | null;
  /** Why the box could not write to its disk when it last said. */
  storage: string | null;
}

export interface Vehicle {
  time: string;
  vehicle_ref?: string;
  vin?: string;
  protocol?: string;
}

export interface Adapter {
  time: string;
  adapter?: string;
  state?: string;
  detail?: string;
  version?: string;
}

export interface DeviceDetail extends Device {
  vehicle: Vehicle | null;
  plugins: Record<string, string>;
  adapter: Adapter | null;
}

export interface NexusEvent<T = unknown> {
  cursor: string;
  epoch: number;
  stream: Stream;
  seq: number;
  type: string;
  source: string;
  time: string;
  received: string;
  clock: "synced" | "unsynced" | "retimed" | "unknown";
  /** What the box said, where the console has set the time right. */
  box_time: string | null;
  data: T;
}

export interface Point {
  time: string;
  value: number | string | boolean | null;
  quality: Quality;
  /** Of a minute or an hour: what the readings lay between; value is their mean. */
  minimum?: number | null;
  maximum?: number | null;
}

export interface Series {
  name: string;
  ecu: string | null;
  unit: string | null;
  points: Point[];
}

export interface SeriesList {
  series: Series[];
  truncated: boolean;
}

export interface Range {
  first: number;
  last: number;
}

export interface Loss extends Range {
  count: number;
  first_time: string | null;
  last_time: string | null;
  cause: string;
}

export interface StreamDelivery {
  epoch: number;
  stream: Stream;
  high_water: number;
  sealed: number;
  received: number;
  duplicates: number;
  gaps: Range[];
  losses: Loss[];
  undecodable: number;
  conflicts: number;
  closed: boolean;
}

export interface Remark {
  kind: "epoch" | "asked" | "clock";
  text: string;
  count: number;
  first_seen: string;
  last_seen: string;
}

export interface Delivery {
  outbox: { told: string | null; oldest: string | null };
  streams: StreamDelivery[];
  remarks: Remark[];
}

export type CommandState =
  | "queued"
  | "accepted"
  | "running"
  | "succeeded"
  | "failed"
  | "rejected"
  | "expired";

export interface Command {
  id: string;
  name: string;
  state: CommandState;
  progress: string | null;
  error: string | null;
  created: string;
  expires: string;
  updated: string;
  created_by: string;
}

export interface Code {
  code: string;
  ecu: string;
  kinds: string[];
  /** Whether its fault is there now; missing where that is not told. */
  active?: boolean | null;
}

export interface Scan {
  scan_id: string;
  phase?: "pre" | "post" | null;
  parts?: { plugin: string; outcome: string; detail?: string | null }[];
  dtcs: Code[];
  modules: { ecu: string; answers: Record<string, { quality: Quality; detail: string | null }> }[];
}

export interface ScanDiff {
  before: string;
  after: string;
  fixed: { code: string; ecu: string }[];
  remaining: Code[];
  /** Were more before; boxes of before the event catalogue told them among those that remain. */
  permanent?: Code[];
  new: Code[];
  unknown: { ecu: string; kind: string; quality: Quality }[];
}
