// What the console knows of a lane (one stream of one epoch), in sentences.

import type { Tone } from "../parts/Status.svelte";
import { count, many, span, sum } from "./format";
import type { Loss, Range, Stream, StreamDelivery } from "./types";

export interface Sentence {
  tone: Tone;
  text: string;
}

const ORDER: readonly Stream[] = ["alert", "event", "telemetry", "log"];
const ONE: Record<Stream, string> = {
  alert: "alert",
  event: "event",
  telemetry: "sample",
  log: "log line",
};

/** The newest epoch first, the most urgent stream first. */
export function inOrder(lanes: StreamDelivery[]): StreamDelivery[] {
  return [...lanes].sort(
    (a, b) => b.epoch - a.epoch || ORDER.indexOf(a.stream) - ORDER.indexOf(b.stream),
  );
}

export function isWhole(lane: StreamDelivery): boolean {
  const { gaps, losses, undecodable, conflicts } = lane;
  return gaps.length + losses.length + undecodable + conflicts === 0;
}

/** How far a lane has come: one sentence, the only one where all is well. */
export function standing(lane: StreamDelivery): Sentence {
  const { stream, high_water: here, sealed, gaps } = lane;
  if (sealed < here && !lane.closed) {
    return {
      tone: "warn",
      text: `All up to ${count(here)} is settled, but the box says it has numbered only up to ${count(sealed)}: its disk is another one.`,
    };
  }
  const waiting = gaps.length === 0 ? Math.max(0, sealed - here) : 0;
  const more = waiting === 0 ? "" : ` ${many(waiting, `more ${ONE[stream]}`)} not here yet.`;
  if (here === 0) {
    const nothing = lane.closed && gaps.length === 0 ? "Nothing was ever numbered." : "Nothing is here yet.";
    return { tone: "offline", text: waiting > 0 ? `Nothing is here yet.${more}` : nothing };
  }
  // What was lost or cannot be read is settled, but it is not here.
  const all = lane.losses.length + lane.undecodable === 0 ? "Everything" : "Everything else";
  return {
    tone: isWhole(lane) ? "ok" : "offline",
    text: `${all} up to ${count(here)} is here.${more}`,
  };
}

export function gapSentence(lane: StreamDelivery, gap: Range): Sentence {
  const missing = `${many(size(gap), ONE[lane.stream])} missing`;
  const where = gap.first === gap.last ? `number ${count(gap.first)}` : `numbers ${numbers(gap)}`;
  const [them, are] = size(gap) === 1 ? ["it", "it is"] : ["them", "they are"];
  // Above what it has numbered, a box whose disk is another one has nothing to send.
  const kept = gap.last <= lane.sealed ? `; the box sends ${them}, or says that ${are} lost` : "";
  return { tone: "warn", text: `${missing}, ${where}: not here yet${kept}.` };
}

export function lossSentence(lane: StreamDelivery, loss: Loss, now: number): Sentence {
  const lost = `${many(loss.count, ONE[lane.stream])} dropped`;
  return { tone: "critical", text: `${lost}${when(loss, now)}: ${loss.cause}` };
}

/** Segments that came, but not as what they should be. */
export function asideSentences(lane: StreamDelivery): Sentence[] {
  const found: Sentence[] = [];
  const { undecodable, conflicts } = lane;
  if (undecodable > 0) {
    const them = undecodable === 1 ? "It is" : "They are";
    found.push({
      tone: "critical",
      text: `${many(undecodable, "segment")} could not be read. ${them} kept as received.`,
    });
  }
  if (conflicts > 0) {
    found.push({
      tone: "critical",
      text: `${many(conflicts, "segment")} came twice with other content: the disk was cloned or restored.`,
    });
  }
  return found;
}

/** "14 outstanding, 7 lost": what is wrong with some lanes, in short; empty where nothing is. */
export function troubles(lanes: StreamDelivery[]): string {
  const parts: [number, string][] = [
    [sum(lanes, ({ gaps }) => sum(gaps, size)), "outstanding"],
    [sum(lanes, ({ losses }) => sum(losses, (loss) => loss.count)), "dropped"],
    [sum(lanes, ({ undecodable }) => undecodable), "unreadable"],
    [sum(lanes, ({ conflicts }) => conflicts), "in conflict"],
  ];
  return parts
    .filter(([number]) => number > 0)
    .map(([number, word]) => `${count(number)} ${word}`)
    .join(", ");
}

export function numbers({ first, last }: Range): string {
  return first === last ? count(first) : `${count(first)}–${count(last)}`;
}

function size({ first, last }: Range): number {
  return last - first + 1;
}

function when({ first_time, last_time }: Loss, now: number): string {
  if (first_time !== null && last_time !== null) return ` ${span(first_time, last_time, now)}`;
  if (first_time !== null) return ` from ${span(first_time, first_time, now)}, end unknown`;
  if (last_time !== null) return ` until ${span(last_time, last_time, now)}, start unknown`;
  return ", times unknown";
}
