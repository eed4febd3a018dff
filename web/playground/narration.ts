/**
 * Sentences about what happens in the world of the playground.
 *
 * @module
 */

import { type ErrDiverged, ErrUpdateFailed } from "../../mod.ts";
import type { Action, WorldEvent } from "./world.ts";

/** Weight of a sentence: `step` leads through a tour, `warning` is about a fault. */
export type Tone = "step" | "plain" | "good" | "warning";

/** Sentence at a time of a run. */
export interface Sentence {
  /** Simulated time, in milliseconds. */
  readonly at: number;
  readonly tone: Tone;
  readonly text: string;
  /** Number of times that it was true in a row, or almost so. */
  times: number;
}

/** Range of indexes, such as `#3` or `#3–#5`. */
function range(from: number, to: number): string {
  return from >= to ? `#${to}` : `#${from}–#${to}`;
}

function ofAction(action: Action): string {
  const { on } = action;
  switch (action.do) {
    case "propose":
      return action.session
        ? `${on} proposes “${action.command}”, in its session.`
        : `${on} proposes “${action.command}”, outside of any session.`;
    case "pause":
      return `${on} is paused: it holds its state, and nothing in it runs.`;
    case "resume":
      return `${on} continues where it stood.`;
    case "crash":
      return `${on} crashes. All that it had in memory is gone.`;
    case "restart":
      return `${on} starts again, with no state.`;
    case "cut":
      return `${on} is cut off from the log. Messages under way are lost.`;
    case "join":
      return `${on} reaches the log again.`;
    case "slow":
      return `The network of ${on} is slow now.`;
    case "fast":
      return `The network of ${on} is fast again.`;
    case "snapshot":
      return `${on} is asked for a snapshot of its state.`;
    case "compact":
      return `${on} is asked to compact the log.`;
    case "skip":
      return "An operator decides that every replica leaves out the entry at which the machine threw.";
    case "lose":
      return `The next message from ${on} to the log will be lost.`;
    case "lose answer":
      return `The next answer of the log to ${on} will be lost.`;
    case "double":
      return `The next message from ${on} to the log will arrive twice.`;
  }
}

/** Sentence for an event, with its tone; undefined for an event that needs no words. */
export function narrate(
  event: WorldEvent,
): readonly [tone: Tone, text: string] | undefined {
  switch (event.type) {
    case "action":
      return ["plain", ofAction(event.action)];
    case "appended": {
      const { index, kind, text, from, repeats, inSession } = event.cell;
      if (kind === "session" && repeats === undefined) {
        return [
          "plain",
          `The log records at #${index} that ${from} has opened a session.`,
        ];
      }
      if (kind !== "command") return undefined;
      if (repeats === undefined) {
        return ["plain", `“${text}” from ${from} is #${index} of the log.`];
      }
      return inSession
        ? [
          "good",
          `#${index} is the same command as #${repeats}. Its session says so: every replica passes over it.`,
        ]
        : [
          "warning",
          `#${index} is the same command as #${repeats}, but outside of a session nothing says so: it is applied twice.`,
        ];
    }
    case "lost": {
      const { kind, label, replica } = event.packet;
      switch (kind) {
        case "append":
          return ["warning", `The message “${label}” from ${replica} is lost.`];
        case "answer":
          return [
            "warning",
            `The log’s answer to ${replica} is lost, as its connection broke: ${replica} cannot know that its command is in the log.`,
          ];
        default:
          return undefined;
      }
    }
    case "unanswered":
      return [
        "warning",
        `${event.on} has no answer about “${event.label}”.`,
      ];
    case "applied": {
      const { on, from, to, isStart, snapshot } = event;
      if (!isStart) {
        return to - from < 2
          ? undefined
          : ["plain", `${on} applies ${range(from, to)}.`];
      }
      if (snapshot === undefined) {
        return to <= 3
          ? undefined
          : ["good", `${on} applies ${range(1, to)} from the beginning.`];
      }
      return [
        "good",
        from > to
          ? `${on} recovers the snapshot at #${snapshot}, the end of the log.`
          : `${on} recovers the snapshot at #${snapshot}, then applies ${
            range(from, to)
          }.`,
      ];
    }
    case "answered":
      return undefined;
    case "unknown":
      return [
        "warning",
        `“${event.command}” has an unknown outcome: outside of a session, ${event.on} must not send it again.`,
      ];
    case "refused":
      return [
        "warning",
        `${event.on} could not do ${event.what}: ${event.why}.`,
      ];
    case "agreed":
      return [
        "good",
        `All three have applied #${event.index}, and their states have the same hash, ${event.hash.text}.`,
      ];
    case "healed":
      return [
        "good",
        `${event.on} answers again, from a snapshot that agrees with A.`,
      ];
    case "nothing to compact":
      return [
        "plain",
        "Nothing to drop yet: the log keeps everything after the older of two good snapshots.",
      ];
    case "host":
      return ofHost(event);
  }
}

/** Sentence about an error; of a machine that threw, the entry and what it threw. */
function messageOf(error: unknown): string {
  return error instanceof ErrUpdateFailed
    ? `update() threw at #${error.index}: ${error.cause}`
    : error instanceof Error
    ? error.message
    : String(error);
}

function ofHost(
  { on, event, isStart }: WorldEvent & { readonly type: "host" },
): readonly [Tone, string] | undefined {
  switch (event.type) {
    case "snapshot":
      return [
        "good",
        `${on} saves a snapshot: its state after #${event.snapshot.index}.`,
      ];
    case "compacted":
      return [
        "good",
        `The log drops what is up to #${event.upTo}: two snapshots have it, and no replica needs it.`,
      ];
    case "recovered":
      return isStart ? undefined : [
        "good",
        `${on} recovers the snapshot at #${event.snapshot.index}.`,
      ];
    case "diverged": {
      const { after, upTo, index, message } = event.error as ErrDiverged;
      if (index === undefined) {
        return [
          "warning",
          `${on} and A have different hashes at #${upTo}${
            after === undefined ? "" : `, and had the same at #${after}`
          }. ${on} stops answering.`,
        ];
      }
      return [
        "warning",
        message.endsWith("applied twice")
          ? `${on} found the cause: #${index}, applied on two copies of its machine, gave two states.`
          : `${on} found the cause: #${index} gave another state on A than on a copy of its own machine.`,
      ];
    }
    case "entry skipped":
      return ["good", `${on} goes on without #${event.skip.index}.`];
    case "failed":
      return ["warning", `${on} stops: ${messageOf(event.failure)}.`];
    case "snapshot failed":
      return [
        "warning",
        `${on} could not make or use a snapshot: ${messageOf(event.error)}.`,
      ];
    default:
      return undefined;
  }
}
