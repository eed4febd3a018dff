/**
 * Plan of the faults of a history, drawn from a seed.
 *
 * @module
 */

import { type Random, seeded } from "../../support/random.ts";
import type { LinkState } from "./link.ts";

/** Number of etcd nodes, and of servers. */
export const COUNT = 3;

/** Fault with its target. */
export type FaultKind =
  | { readonly type: "kill etcd" | "freeze etcd"; readonly node: number }
  | { readonly type: "kill server" | "freeze server"; readonly server: number }
  /** Kills a server, and removes its snapshots. */
  | { readonly type: "lose disk"; readonly server: number }
  /** Sets the clock of a server forward or back, and right again. */
  | {
    readonly type: "jump clock";
    readonly server: number;
    readonly by: number;
  }
  /** Cuts a server off one etcd node, or off all of them. */
  | {
    readonly type: "cut server from etcd";
    readonly server: number;
    readonly node: number | "all";
    readonly state: LinkState;
    readonly drops: boolean;
  }
  /** Cuts the clients off a server. */
  | {
    readonly type: "cut clients from server";
    readonly server: number;
    readonly state: LinkState;
    readonly drops: boolean;
  }
  /** Cuts the connections that the other etcd nodes make to one. */
  | {
    readonly type: "cut etcd node";
    readonly node: number;
    readonly state: LinkState;
    readonly drops: boolean;
  }
  /** Cuts all etcd nodes off each other: each answers, and none has a quorum. */
  | {
    readonly type: "part etcd nodes";
    readonly state: LinkState;
    readonly drops: boolean;
  }
  /** Freezes two of the etcd nodes. */
  | { readonly type: "lose quorum"; readonly spared: number };

/** Fault in a plan. */
export interface Fault {
  /** Time after the start, in milliseconds. */
  readonly at: number;
  /** Time until it is mended, in milliseconds. */
  readonly ms: number;
  readonly kind: FaultKind;
}

/** Options of a plan. */
export interface PlanOptions {
  readonly seed: number;
  /** Length of the history, in milliseconds. */
  readonly ms: number;
  /** Longest fault, in milliseconds. */
  readonly faultMsMax: number;
  /** Length of a loss of the quorum, in milliseconds. */
  readonly quorumMs: number;
}

const CUTS = ["refused", "silent", "mute", "deaf"] as const;

/** Jumps of a clock, in milliseconds. */
const JUMPS_MS = [-86_400_000, -2_000, 2_000, 86_400_000] as const;

function draw(random: Random): FaultKind {
  const server = random.below(COUNT);
  const node = random.below(COUNT);
  const state = random.pick(CUTS);
  const drops = random.oneIn(2);
  switch (random.below(16)) {
    case 0:
    case 1:
      return { type: "kill etcd", node };
    case 2:
    case 3:
      return { type: "freeze etcd", node };
    case 4:
    case 5:
      return { type: "kill server", server };
    case 6:
      return { type: "freeze server", server };
    case 7:
      return { type: "cut server from etcd", server, node, state, drops };
    case 8:
      return {
        type: "cut server from etcd",
        server,
        node: "all",
        state,
        drops,
      };
    case 9:
    case 10:
      return { type: "cut clients from server", server, state, drops };
    case 11:
      return { type: "cut etcd node", node, state, drops };
    case 12:
      return { type: "part etcd nodes", state, drops };
    case 14:
      return { type: "lose disk", server };
    case 13:
      return { type: "jump clock", server, by: random.pick(JUMPS_MS) };
    default:
      return { type: "lose quorum", spared: node };
  }
}

/** Draws the faults of a history: the same for the same options. Faults may overlap. */
export function planOf(options: PlanOptions): Fault[] {
  const random = seeded(options.seed);
  const { ms: length, faultMsMax, quorumMs } = options;
  const faults: Fault[] = [];
  let hasQuorum = true;
  let hasDisks = true;
  for (let at = 1_000; at < length - faultMsMax;) {
    let kind = draw(random);
    if (kind.type === "lose quorum") {
      // Once in each history, so that most of the time there is progress.
      if (!hasQuorum) kind = { type: "freeze etcd", node: kind.spared };
      hasQuorum = false;
    }
    if (kind.type === "lose disk") {
      // Two servers hold each snapshot behind which a log is compacted.
      if (!hasDisks) kind = { type: "kill server", server: kind.server };
      hasDisks = false;
    }
    const ms = kind.type === "lose quorum"
      ? quorumMs
      : 300 + random.below(faultMsMax - 300);
    faults.push({ at, ms, kind });
    at += random.oneIn(3)
      ? random.below(ms)
      : ms + random.below(faultMsMax / 2);
  }
  return faults;
}

/** Describes a fault. */
export function describeFault({ at, ms, kind }: Fault): string {
  const { type, ...rest } = kind;
  return `${at} ms: ${type} ${JSON.stringify(rest)} for ${ms} ms`;
}
