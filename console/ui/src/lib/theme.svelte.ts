export type Choice = "system" | "light" | "dark";

const KEY = "nexus-theme";
const ORDER: readonly Choice[] = ["system", "light", "dark"];

class Theme {
  choice = $state<Choice>((document.documentElement.dataset.theme as Choice) ?? "system");
  /** Counts changes of what is seen, for what draws by itself. */
  version = $state(0);

  constructor() {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.version++);
  }

  next(): void {
    this.choice = ORDER[(ORDER.indexOf(this.choice) + 1) % ORDER.length] ?? "system";
    if (this.choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.choice;
    try {
      localStorage.setItem(KEY, this.choice);
    } catch {
      // No storage: the choice lasts as long as the tab.
    }
    this.version++;
  }
}

export const theme = new Theme();
