// One stream for all tabs of a browser: over HTTP/1.1 it opens six connections to a host, and a
// seventh stream would hang with everything else. The tab that holds a lock has the stream and
// passes on what comes; when it goes, the browser hands the lock to the next.

import { api } from "./api";

const NAME = "nexus-live";
const SILENCE_MS = 25_000; // the console says something every 10 s
const AGAIN_MS = 1_500;
const POLL_MS = 3_000;

/** Streams by box that have changed; null: anything may have. */
export type Changes = Record<string, string[]> | null;
type State = "connecting" | "live" | "away";
type Message =
  | { kind: "state"; state: State }
  | { kind: "changes"; changes: Changes }
  | { kind: "who" }
  | { kind: "ended" };

class Live {
  state = $state<State>("connecting");
  /** When the console was last heard, in ms since 1970. */
  heard = $state(Date.now());

  #listeners = new Set<(changes: Changes) => void>();
  #ended: () => void = () => undefined;
  #channel: BroadcastChannel | null = null;
  #stopped = new AbortController();
  #source: EventSource | null = null;
  #leading = false;
  #silence = 0;

  onEnded(callback: () => void): void {
    this.#ended = callback;
  }

  /** Call *listener* with every change until the function that this returns is called. */
  listen(listener: (changes: Changes) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  start(): void {
    if (this.#channel !== null) return;
    this.state = "connecting";
    this.#stopped = new AbortController();
    this.#channel = new BroadcastChannel(NAME);
    this.#channel.onmessage = ({ data }: MessageEvent<Message>) => this.#receive(data);
    // Locks are there on HTTPS and on this machine only; elsewhere every tab asks in turns.
    if (!("locks" in navigator)) return this.#poll();
    const signal = this.#stopped.signal;
    navigator.locks
      .request(NAME, { signal }, () => {
        this.#leading = true;
        this.#connect();
        return new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      })
      .catch(() => undefined); // stopped before it was this tab's turn
    this.#channel.postMessage({ kind: "who" } satisfies Message);
  }

  stop(): void {
    this.#stopped.abort();
    this.#disconnect();
    this.#leading = false;
    this.#channel?.close();
    this.#channel = null;
  }

  /** Tell the other tabs that the log-in has ended. */
  tellEnded(): void {
    this.#channel?.postMessage({ kind: "ended" } satisfies Message);
  }

  #receive(message: Message): void {
    if (message.kind === "who") {
      if (this.#leading) this.#channel?.postMessage({ kind: "state", state: this.state });
    } else if (message.kind === "ended") {
      this.#ended();
    } else if (message.kind === "state") {
      const back = message.state === "live" && this.state !== "live";
      this.state = message.state;
      if (message.state === "live") this.heard = Date.now();
      if (back) this.#tell(null);
    } else {
      this.heard = Date.now();
      this.#tell(message.changes);
    }
  }

  #tell(changes: Changes): void {
    for (const listener of this.#listeners) listener(changes);
  }

  #pass(message: Message): void {
    this.#channel?.postMessage(message);
    this.#receive(message);
  }

  #connect(): void {
    const source = (this.#source = new EventSource("/api/v1/live"));
    const on = (name: string, act: (event: MessageEvent<string>) => void) =>
      source.addEventListener(name, (event) => {
        this.#watchSilence();
        act(event as MessageEvent<string>);
      });
    on("hello", () => this.#pass({ kind: "state", state: "live" }));
    // Time alone makes a box stale: nothing is told of that, so everybody looks again.
    on("beat", () => this.#pass({ kind: "changes", changes: null }));
    on("change", ({ data }) => {
      const { devices } = JSON.parse(data) as { devices: Record<string, string[]> };
      this.#pass({ kind: "changes", changes: devices });
    });
    on("bye", () => {
      this.tellEnded();
      this.#ended();
    });
    source.onerror = () => this.#lost();
    this.#watchSilence();
  }

  #disconnect(): void {
    clearTimeout(this.#silence);
    this.#source?.close();
    this.#source = null;
  }

  #watchSilence(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(), SILENCE_MS);
  }

  #lost(): void {
    this.#disconnect();
    this.#pass({ kind: "state", state: "away" });
    const again = setTimeout(() => void this.#retry(), AGAIN_MS);
    this.#stopped.signal.addEventListener("abort", () => clearTimeout(again));
  }

  async #retry(): Promise<void> {
    const signal = this.#stopped.signal;
    try {
      const { user } = await api.session();
      if (signal.aborted) return;
      if (user === null) {
        this.tellEnded();
        this.#ended();
      } else {
        this.#connect();
      }
    } catch {
      if (!signal.aborted) this.#lost();
    }
  }

  #poll(): void {
    const look = async () => {
      try {
        await api.session();
        this.#receive({ kind: "state", state: "live" });
        this.#tell(null);
      } catch {
        this.state = "away";
      }
    };
    const timer = setInterval(() => void look(), POLL_MS);
    this.#stopped.signal.addEventListener("abort", () => clearInterval(timer));
    void look();
  }
}

export const live = new Live();
