import { untrack } from "svelte";
import { Away, Refused } from "./api";
import { live, type Changes } from "./live.svelte";

const PAUSE_MS = 250;

/**
 * Call *load* now and whenever something that *concerns* it has changed, one at a time and with a
 * pause between, until the component that this is used in is gone. What it throws stays in `error`
 * until it succeeds again.
 */
export class Loading {
  error = $state<string | null>(null);
  #running = false;
  #wanted = false;
  #gone = false;

  constructor(
    private readonly load: () => Promise<void>,
    concerns: (changes: Record<string, string[]>) => boolean = () => true,
  ) {
    $effect(() => {
      const stop = live.listen((changes: Changes) => {
        if (changes === null || concerns(changes)) this.again();
      });
      // What is loaded may be told by state: a change of it is the caller's to act upon.
      untrack(() => this.again());
      return () => {
        this.#gone = true;
        stop();
      };
    });
  }

  again(): void {
    this.#wanted = true;
    if (!this.#running) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#wanted && !this.#gone) {
      this.#wanted = false;
      try {
        await this.load();
        this.error = null;
      } catch (error) {
        // Away is said once, at the top of the page; a missing box is said by its view.
        if (error instanceof Refused) this.error = error.message;
        else if (!(error instanceof Away)) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    this.#running = false;
  }
}

/** Whether the history of a car has changed, whichever box has told of it. */
export function ofVehicles(changes: Record<string, string[]>): boolean {
  return Object.values(changes).some((what) => what.includes("vehicles"));
}

/** Whether one of these streams of a box has changed. */
export function ofBox(id: () => string, ...what: string[]) {
  return (changes: Record<string, string[]>): boolean =>
    changes[id()]?.some((stream) => what.includes(stream)) ?? false;
}
