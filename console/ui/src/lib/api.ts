import { clock } from "./clock.svelte";
import type {
  Command,
  Delivery,
  Device,
  DeviceDetail,
  NexusEvent,
  SeriesList,
  Session,
} from "./types";
import type {
  CodeLife,
  FreezeFrame,
  LiveValue,
  Scan,
  Told,
  VehicleDetail,
  VehiclePage,
} from "./vehicles";

const ROOT = "/api/v1";

/** The console answered, but with an error. status is HTTP's; the message is for people. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Nobody answered. */
export class Away extends Error {
  constructor() {
    super("The console does not answer.");
  }
}

/** Called when an answer says that the log-in has ended. */
let ended: () => void = () => undefined;

export function onLoggedOut(callback: () => void): void {
  ended = callback;
}

async function call<T>(path: string, body?: unknown): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(
      ROOT + path,
      body === undefined
        ? {}
        : {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(body),
          },
    );
  } catch {
    throw new Away();
  }
  clock.compare(answer.headers.get("date"));
  if (answer.ok) return (answer.status === 204 ? undefined : await answer.json()) as T;
  const told = (await answer.json().catch(() => ({}))) as { error?: string };
  if (answer.status === 401 && path !== "/login") ended();
  throw new Refused(answer.status, told.error ?? `The console answered with ${answer.status}.`);
}

type Query = Record<string, string | number | boolean>;

function asked(query: Query): string {
  const pairs = Object.entries(query).map(([key, value]) => [key, String(value)]);
  const text = new URLSearchParams(pairs).toString();
  return text && `?${text}`;
}

function box(id: string, path = "", query: Query = {}): string {
  return `/devices/${encodeURIComponent(id)}${path}${asked(query)}`;
}

function car(ref: string, ...path: string[]): string {
  return ["/vehicles", ref, ...path].map((part, n) => (n ? encodeURIComponent(part) : part)).join("/");
}

export const api = {
  session: () => call<Session>("/session"),
  logIn: (username: string, password: string) => call<unknown>("/login", { username, password }),
  logOut: () => call<void>("/logout", {}),
  devices: async () => (await call<{ devices: Device[] }>("/devices")).devices,
  device: (id: string) => call<DeviceDetail>(box(id)),
  /** The newest events, ascending. */
  newest: async <T>(id: string, query: { type?: string; stream?: string; limit: number }) =>
    (await call<{ events: NexusEvent<T>[] }>(box(id, "/events", { ...query, newest: true }))).events,
  series: (id: string, query: { from: string; limit: number; resolution: string }) =>
    call<SeriesList>(box(id, "/series", { type: "telemetry.pid", ...query })),
  delivery: (id: string) => call<Delivery>(box(id, "/delivery")),
  commands: async (id: string) =>
    (await call<{ commands: Command[] }>(box(id, "/commands", { limit: 5 }))).commands,
  vehicles: (query: { search: string; limit: number; after?: string }) =>
    call<VehiclePage>(`/vehicles${asked(query)}`),
  vehicle: (ref: string) => call<VehicleDetail>(car(ref)),
  liveValues: async (ref: string) =>
    (await call<{ values: LiveValue[] }>(car(ref, "live"))).values,
  code: (ref: string, ecu: string, code: string) => call<CodeLife>(car(ref, "codes", ecu, code)),
  freezeFrames: async (ref: string) =>
    (await call<{ frames: FreezeFrame[] }>(car(ref, "freeze-frames"))).frames,
  scans: (ref: string, query: { limit: number; after?: string }) =>
    call<{ scans: Told<Scan>[]; next: string | null }>(car(ref, "scans") + asked(query)),
  command: (id: string, name: string, args: Record<string, string> = {}) =>
    call<Command>(box(id, "/commands"), { name, args }),
};
