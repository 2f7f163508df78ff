import { api, onLoggedOut } from "./api";
import { live } from "./live.svelte";
import type { Role } from "./types";

class Session {
  /** unknown: the console has not been asked yet, or has not answered. */
  state = $state<"unknown" | "out" | "in">("unknown");
  user = $state("");
  role = $state<Role>("viewer");
  commands = $derived(this.role === "admin" || this.role === "operator");

  constructor() {
    onLoggedOut(() => this.#left());
    live.onEnded(() => this.#left());
  }

  /** Ask who is logged in here. Throws Away. */
  async look(): Promise<void> {
    const { user, role } = await api.session();
    if (user === null || role === null) return this.#left();
    this.user = user;
    this.role = role;
    this.state = "in";
    live.start();
  }

  async logIn(name: string, password: string): Promise<void> {
    await api.logIn(name, password);
    await this.look();
  }

  /** Every tab stops asking first, so that none is refused what it asked for in between. */
  async logOut(): Promise<void> {
    live.tellEnded();
    this.#left();
    try {
      await api.logOut();
    } catch {
      await this.look(); // still logged in, and so it is said
    }
  }

  #left(): void {
    live.stop();
    this.state = "out";
  }
}

export const session = new Session();
