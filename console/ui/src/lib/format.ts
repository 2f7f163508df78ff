const number = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 2 });
const timeOfDay = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const minute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const dayOfYear = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
});

export function count(value: number): string {
  return number.format(value);
}

/** "3 events", "1 event". */
export function many(value: number, one: string, more = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : more}`;
}

/** "14:03:22", with the day before it where that is not today's, and the year where it is another. */
export function at(time: string, now: number): string {
  return dated(new Date(time), now, timeOfDay);
}

/** "10:02–10:05", with the days where they are not today's. */
export function span(first: string, last: string, now: number): string {
  const [from, to] = [new Date(first), new Date(last)];
  const start = dated(from, now, minute);
  if (from.toDateString() !== to.toDateString()) return `${start} – ${dated(to, now, minute)}`;
  const end = minute.format(to);
  return start.endsWith(end) ? start : `${start}–${end}`;
}

function dated(then: Date, now: number, clock: Intl.DateTimeFormat): string {
  const today = new Date(now);
  if (then.toDateString() === today.toDateString()) return clock.format(then);
  const date = then.getFullYear() === today.getFullYear() ? day : dayOfYear;
  return `${date.format(then)}, ${clock.format(then)}`;
}

/** "12 s", "3 min", "2 h", "4 days": how long ago *time* was. */
export function age(time: string, now: number): string {
  return duration((now - Date.parse(time)) / 1000);
}

export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h`;
  return many(Math.floor(whole / 86_400), "day");
}

const SHORT = new Set(["ecu", "egr", "evap", "mil", "nmhc", "nox", "obd", "pm", "vin", "vvt"]);
const SENSOR = /^b\d+s\d+$/;

/** "egr_system" as people write it: "EGR system". */
export function words(name: string): string {
  const parts = name
    .split("_")
    .map((part) => (SHORT.has(part) || SENSOR.test(part) ? part.toUpperCase() : part));
  const text = parts.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function sum<T>(items: T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
