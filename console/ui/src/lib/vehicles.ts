// What /api/v1/vehicles answers, as far as the page reads it, and how it is said in words.

import type { IconName } from "../parts/Icon.svelte";
import type { Tone } from "../parts/Status.svelte";
import { words } from "./format";
import type { Quality } from "./types";

export type Kind = "stored" | "pending" | "permanent";
export type State =
  | "pending"
  | "confirmed"
  | "permanent"
  | "returned"
  | "unknown"
  | "cleared"
  | "gone";
export type Outcome = "new" | "remaining" | "permanent" | "fixed" | "unknown";
export type Unsaid = Partial<Record<Kind, string>>;

export interface Vehicle {
  ref: string;
  vin: string | null;
  maker: string | null;
  model_year: number | null;
  first_seen: string;
  last_seen: string;
  last_scan: string | null;
  present: number;
  unknown: number;
  boxes: string[];
}

export interface VehiclePage {
  vehicles: Vehicle[];
  next: string | null;
  unreadable: number;
}

export interface Told<T> {
  time: string;
  box: string;
  cursor: string;
  scan_id: string | null;
  data: T;
}

export interface Identity {
  protocol: string | null;
  ecus: string[];
  quality: Quality;
  vin_check: "ok" | "wrong" | "not used" | null;
  region: string | null;
}

export interface VehicleCode {
  ecu: string;
  code: string;
  state: State;
  kinds: Kind[];
  unsaid: Unsaid;
  since: string;
  first_seen: string;
  seen: string;
  checked: string;
  returned: number;
}

export interface CodeChange {
  state: State;
  kinds: Kind[];
  unsaid: Unsaid;
  time: string;
  box: string;
  cursor: string;
  scan_id: string | null;
}

export interface CodeLife extends VehicleCode {
  changes: CodeChange[];
}

export interface Module {
  ecu: string;
  name: string | null;
  answers: Record<string, { quality: Quality; codes: string[]; detail: string | null }>;
}

export interface Scan {
  scan_id: string;
  modules: Module[];
  /** Null where freeze frames were not asked for. */
  freeze_frames: (Answered & { frames: number })[] | null;
  phase: string | null;
}

export interface Compared {
  ecu: string;
  code: string;
  outcome: Outcome;
  before: Kind[];
  after: Kind[];
  unsaid: Unsaid;
}

interface Answered {
  ecu: string;
  quality: Quality;
  detail: string | null;
}

export interface Monitor {
  name: string;
  supported: boolean;
  complete: boolean | null;
}

export interface Readiness extends Answered {
  mil: boolean | null;
  dtc_count: number | null;
  ignition: string | null;
  monitors: Monitor[];
  cycle: Monitor[] | null;
}

export interface Verdict {
  rule: string;
  ready: boolean | null;
  reason: string;
  source: string;
}

export interface Calibration extends Answered {
  name: string | null;
  ids: string[];
  cvns: string[];
  cvn_quality: Quality;
}

export interface Counters extends Answered {
  ignition_cycles: number | null;
  obd_conditions: number | null;
  counters: { name: string; completions: number; conditions: number }[];
}

export interface Test {
  monitor: number;
  test: number;
  name: string | null;
  value: number;
  minimum: number | null;
  maximum: number | null;
  unit: string;
  /** Null where it has not run since the codes were cleared. */
  passed: boolean | null;
}

export interface Tests extends Answered {
  tests: Test[];
}

export interface VehicleDetail extends Vehicle {
  sightings: { box: string; first_seen: string; last_seen: string }[];
  identity: Told<Identity> | null;
  codes: VehicleCode[];
  scan: Told<Scan> | null;
  difference: { before: string; after: string; codes: Compared[] } | null;
  cleared: Told<{ outcome: Quality; ecus: { ecu: string; outcome: Quality }[] }> | null;
  readiness: Told<{ ecus: Readiness[]; model_year: number | null; verdicts: Verdict[] }> | null;
  calibrations: Told<{ ecus: Calibration[] }> | null;
  counters: Told<{ ecus: Counters[] }> | null;
  tests: Told<{ ecus: Tests[] }> | null;
}

export interface Value {
  name: string;
  value: number | string | boolean | null;
  unit: string;
  quality: Quality;
  detail: string | null;
}

export interface LiveValue extends Value {
  ecu: string;
  pid: number;
  time: string;
  box: string;
}

export interface FreezeFrame {
  ecu: string;
  frame: number;
  code: string | null;
  values: (Value & { pid: number })[];
  first_seen: string;
  last_seen: string;
}

interface Look {
  tone: Tone;
  word: string;
  icon: IconName;
}

/** What a code's state looks like: a shape and a word, never colour alone. */
export const STATE: Record<State, Look> = {
  confirmed: { tone: "critical", word: "Confirmed", icon: "critical" },
  returned: { tone: "critical", word: "Returned", icon: "again" },
  permanent: { tone: "warn", word: "Permanent", icon: "warn" },
  pending: { tone: "warn", word: "Pending", icon: "warn" },
  unknown: { tone: "offline", word: "Unknown", icon: "unknown" },
  cleared: { tone: "ok", word: "Cleared", icon: "clear" },
  gone: { tone: "ok", word: "Gone", icon: "check" },
};

export const OUTCOME: Record<Outcome, Look> = {
  new: { tone: "critical", word: "New", icon: "plus" },
  remaining: { tone: "warn", word: "Remaining", icon: "same" },
  permanent: { tone: "warn", word: "Permanent", icon: "warn" },
  fixed: { tone: "ok", word: "Fixed", icon: "check" },
  unknown: { tone: "offline", word: "Unknown", icon: "unknown" },
};

export const QUALITY: Record<Quality, Look> = {
  ok: { tone: "ok", word: "Answered", icon: "check" },
  absent: { tone: "offline", word: "Did not answer", icon: "offline" },
  refused: { tone: "warn", word: "Refused", icon: "warn" },
  malformed: { tone: "critical", word: "Malformed", icon: "critical" },
};

/** How a car is called: by its VIN where that was sent, else by what is known of it. */
export function title({ vin, maker, model_year }: Vehicle): string {
  return vin ?? ([maker, model_year].filter((part) => part !== null).join(" ") || "Vehicle");
}

/** "800 rpm"; a word where there is none: absent, refused and malformed are no zero. */
export function said({ value, unit, quality }: Value): string {
  if (quality !== "ok" || value === null) return QUALITY[quality].word;
  if (typeof value === "boolean") return value ? "Yes" : "No";
  if (typeof value === "string") return words(value);
  const figure = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 2 }).format(value);
  return unit === "1" || unit === "" ? figure : `${figure} ${unit}`;
}

/** "stored did not answer, pending was not asked". */
export function unsaidText(unsaid: Unsaid): string {
  return Object.entries(unsaid)
    .map(([kind, why]) => {
      if (why === "not asked") return `${kind} codes were not asked for`;
      if (why === "did not answer") return `no answer about ${kind} codes`;
      return `${kind} codes ${why}`;
    })
    .join(", ");
}

/** "0x21". */
export function hex(byte: number): string {
  return `0x${byte.toString(16).toUpperCase().padStart(2, "0")}`;
}
