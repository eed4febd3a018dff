/**
 * The tour: six short runs, each with its commands, its faults and its words.
 *
 * @module
 */

import type { Action, Name } from "./world.ts";

/** One moment of a tour. */
export interface Moment {
  /** Simulated time, in milliseconds. */
  readonly at: number;
  /** Sentence that leads through the tour. */
  readonly say?: string;
  /** Action at that time. */
  readonly act?: Action;
}

/** Run that shows one idea. */
export interface Tour {
  /** Title on the page. */
  readonly title: string;
  /** Id of the machine. */
  readonly machine: string;
  readonly moments: readonly Moment[];
}

function propose(on: Name, command: string, session = true): Action {
  return { do: "propose", on, command, session };
}

const ORDER: Tour = {
  title: "Order",
  machine: "counter",
  moments: [
    {
      at: 0,
      say:
        "Three replicas of one counter. Each starts with the same state, 0, and opens a session on the log between them.",
    },
    {
      at: 3_400,
      say:
        "Now two of them propose at the same moment: A wants to add 5, C to double. The order matters: 10 or 5.",
    },
    { at: 6_000, act: propose("A", "add 5") },
    { at: 6_010, act: propose("C", "double") },
    {
      at: 9_600,
      say:
        "The log decided: one is before the other, for everyone. Each replica applied both in that order.",
    },
    { at: 12_400, act: propose("B", "add 1") },
    { at: 12_700, act: propose("A", "double") },
    { at: 12_900, act: propose("C", "add 5") },
    {
      at: 16_400,
      say:
        "Same commands, same order, same state: that is all of state machine replication. The coloured words are hashes of the three states.",
    },
  ],
};

const CRASH: Tour = {
  title: "Crash",
  machine: "counter",
  moments: [
    { at: 0, say: "What is lost when a replica crashes? Its memory only." },
    { at: 2_600, act: propose("A", "add 5") },
    { at: 2_900, act: propose("B", "double") },
    { at: 6_400, act: { do: "crash", on: "B" } },
    {
      at: 8_200,
      say: "A and C do not notice. They go on, and the log keeps everything.",
    },
    { at: 9_800, act: propose("C", "add 1") },
    { at: 10_200, act: propose("A", "double") },
    { at: 14_000, act: { do: "restart", on: "B" } },
    {
      at: 15_000,
      say:
        "B has nothing, so it reads the log from #1 and applies all of it again. It ends in the same state, because it gets the same commands.",
    },
  ],
};

const SNAPSHOT: Tour = {
  title: "Snapshot",
  machine: "counter",
  moments: [
    {
      at: 0,
      say:
        "A log that keeps everything grows without end. A snapshot is the state at one index: what came before is not needed any more.",
    },
    { at: 3_000, act: propose("A", "add 5") },
    { at: 3_300, act: propose("B", "double") },
    { at: 3_600, act: propose("C", "add 1") },
    { at: 6_800, act: { do: "snapshot", on: "A" } },
    { at: 8_800, act: { do: "crash", on: "C" } },
    { at: 10_400, act: propose("B", "double") },
    { at: 10_700, act: propose("A", "add 5") },
    { at: 13_600, act: { do: "snapshot", on: "B" } },
    {
      at: 15_000,
      say:
        "Two snapshots are good: the log may drop what the older one has. C is down and will need another way back.",
    },
    { at: 17_600, act: { do: "compact", on: "A" } },
    { at: 20_600, act: propose("A", "add 1") },
    { at: 23_200, act: { do: "restart", on: "C" } },
    {
      at: 24_400,
      say:
        "The beginning of the log is gone. C takes the newest snapshot, and applies only what came after it.",
    },
  ],
};

const ONCE: Tour = {
  title: "Exactly once",
  machine: "counter",
  moments: [
    {
      at: 0,
      say:
        "Networks lose messages, and deliver some twice. First without protection: B adds 5 outside of any session, and the message arrives twice.",
    },
    { at: 4_600, act: { do: "double", on: "B" } },
    { at: 5_400, act: propose("B", "add 5", false) },
    {
      at: 8_800,
      say:
        "The counter is at 10. The same again in a session, which numbers its commands.",
    },
    { at: 11_800, act: { do: "double", on: "B" } },
    { at: 12_600, act: propose("B", "add 5") },
    {
      at: 16_400,
      say:
        "15: the second copy is in the log, but all replicas pass over it. Now the log’s answer is lost, so B sends again.",
    },
    { at: 19_400, act: { do: "lose answer", on: "B" } },
    { at: 20_200, act: propose("B", "add 1") },
    {
      at: 26_000,
      say:
        "16, not 17. Each proposal of a session is applied exactly once, however often it is sent.",
    },
  ],
};

const PARTITION: Tour = {
  title: "Partition",
  machine: "keys",
  moments: [
    {
      at: 0,
      say:
        "Keys and values this time. C will lose its network; the others will not wait for it.",
    },
    { at: 3_000, act: propose("A", "set boat sampan") },
    { at: 6_000, act: { do: "cut", on: "C" } },
    { at: 7_600, act: propose("A", "swap color red blue") },
    { at: 9_000, act: propose("C", "swap color red green") },
    {
      at: 11_000,
      say:
        "Both swap a red color for another one. A’s swap is in the log. C still shows red, and sends its own again and again.",
    },
    { at: 16_000, act: { do: "join", on: "C" } },
    {
      at: 17_200,
      say:
        "C is back: it gets what it missed, and its own command gets its place, after A’s. The color is no longer red, so the machine refuses it on every replica alike.",
    },
  ],
};

const DIVERGENCE: Tour = {
  title: "Divergence",
  machine: "clock",
  moments: [
    {
      at: 0,
      say:
        "This machine breaks the one rule: “stamp” reads the clock, and the clocks of the replicas differ.",
    },
    { at: 3_400, act: propose("A", "add 1") },
    { at: 3_700, act: propose("B", "stamp") },
    {
      at: 7_000,
      say:
        "Same commands, same order, and yet three states. It would go unnoticed if the replicas did not compare their hashes at every fourth entry.",
    },
    { at: 9_600, act: propose("A", "add 1") },
    { at: 9_900, act: propose("A", "add 1") },
    {
      at: 15_500,
      say:
        "A is the one the others trust. B and C know that they are wrong, and between which entries it began. They would rather be silent than wrong.",
    },
    { at: 24_600, act: { do: "snapshot", on: "A" } },
    {
      at: 25_800,
      say: "With a snapshot of A they can be put right.",
    },
    { at: 28_600, act: propose("A", "add 1") },
  ],
};

/** The six runs of the tour, in order. */
export const TOURS: readonly Tour[] = [
  ORDER,
  CRASH,
  SNAPSHOT,
  ONCE,
  PARTITION,
  DIVERGENCE,
];

/** Time of the last moment of a tour, in milliseconds. */
export function lengthOf({ moments }: Tour): number {
  return moments.at(-1)!.at;
}
