export type Tab = "overview" | "events" | "delivery";
export type View =
  | { name: "fleet" }
  | { name: "box"; id: string; tab: Tab }
  | { name: "vehicles" }
  | { name: "vehicle"; ref: string };

const TABS: readonly string[] = ["events", "delivery"];

class Router {
  path = $state(location.pathname);
  view = $derived(read(this.path));

  constructor() {
    addEventListener("popstate", () => (this.path = location.pathname));
    document.addEventListener("click", (event) => this.#follow(event));
  }

  go(path: string): void {
    history.pushState(null, "", path);
    this.path = location.pathname;
    scrollTo(0, 0);
  }

  /** Links within the page need no request; what opens a new tab stays the browser's. */
  #follow(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (link === null || link.origin !== location.origin || link.hash !== "") return;
    event.preventDefault();
    if (link.pathname !== location.pathname) this.go(link.pathname);
  }
}

function read(path: string): View {
  const [first, id, tab] = path.split("/").slice(1).map(decodeURIComponent);
  if (first === "vehicles") return id ? { name: "vehicle", ref: id } : { name: "vehicles" };
  if (first !== "boxes" || !id) return { name: "fleet" };
  return { name: "box", id, tab: tab && TABS.includes(tab) ? (tab as Tab) : "overview" };
}

export function boxPath(id: string, tab: Tab = "overview"): string {
  return `/boxes/${encodeURIComponent(id)}${tab === "overview" ? "" : `/${tab}`}`;
}

export function vehiclePath(ref: string): string {
  return `/vehicles/${encodeURIComponent(ref)}`;
}

export const router = new Router();
