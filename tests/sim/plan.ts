/**
 * Plan of a simulated world, drawn from its seed as plain data: what it consists
 * of, and the steps that happen in it. Steps can be left out: one that no longer
 * applies does nothing.
 *
 * @module
 */

import { derivedSeed, generator } from "../../src/testing/simulated_clock.ts";
import { type Cut, CUTS } from "../../src/testing/simulated_network.ts";
import { type Damage, DAMAGES } from "./disk.ts";
import { DENIED, type LedgerKind, LEDGERS, POISON } from "./machines.ts";

/** Part of a command that the server's `validate` refuses. */
export const BAD = "bad";

/** Way in which a process ends. */
export type End = "stop" | "kill" | "power cut";

/** Clock of a process. */
export interface ClockProfile {
  /** Milliseconds on its clock for each simulated one. */
  readonly rate: number;
  readonly offset: number;
}

/** A server process, over all its lives. */
export interface ServerProfile {
  readonly kinds: readonly LedgerKind[];
  readonly clock: ClockProfile;
  /** State version of the code of its machines. */
  readonly version: number;
}

/** A device, over all lives of its process. */
export interface DeviceProfile {
  readonly name: string;
  /** Principal; several devices may have the same. */
  readonly owner: string;
  readonly kinds: readonly LedgerKind[];
  readonly clock: ClockProfile;
  /** True if it has a copy of the log, and snapshots of its own. */
  readonly hasCopy: boolean;
  readonly snapshotEntries: number;
  /** True if calls of its stores take time. */
  readonly isSlow: boolean;
  readonly version: number;
  /** True if each cluster has a host of its own in the process, with the same stores and connection. */
  readonly splitsHosts: boolean;
  /** True if it has an address of each server, and uses one after the other. */
  readonly usesAllServers: boolean;
  /** Origin whose stores it shares, as one of its tabs; undefined for a process with stores of its own. */
  readonly origin?: string;
  /** Clusters that it has, from 0; all without it. */
  readonly clusters?: readonly number[];
}

/** Constitution of a world, and the faults that may occur in it. */
export interface Profile {
  /** Number of clusters, on one connection of each device. */
  readonly clusters: number;
  readonly keys: number;
  readonly servers: readonly ServerProfile[];
  readonly devices: readonly DeviceProfile[];
  /** Storage of the servers' log: memory, which survives its process, or a disk. */
  readonly log: "memory" | "disk";
  /** True if the log is a process of its own, which calls reach after some time; always with several servers. */
  readonly isRemoteLog: boolean;
  readonly isSlowDisk: boolean;
  readonly compression: "none" | "gzip" | "deflate-raw";
  /** Applied entries between two snapshots of a server; 0 for none. */
  readonly snapshotEntries: number;
  readonly compactionOverhead: number;
  readonly fullSnapshotInterval: number;
  readonly sessionsMax: number;
  /** Entries between two comparisons of the replicas' hashes. */
  readonly hashEntries: number;
  /** Bytes of filling in each snapshot. */
  readonly snapshotFilling: number;
  /** One command in this many is refused; 0 for none. */
  readonly refusals: number;
  /** One command in this many is large; 0 for none. */
  readonly large: number;
  /** True if sessions are evicted while their clients are away. */
  readonly evictions: boolean;
  /** True if the log is compacted while clients are away. */
  readonly compaction: boolean;
  /** True if tokens expire. */
  readonly tokens: boolean;
  /** True if an outbox is copied to another device. */
  readonly copies: boolean;
  /** True if stores have no room, or fail with an unknown outcome. */
  readonly fullStores: boolean;
  /** True if power is cut, so that what was written last is lost. */
  readonly powerCuts: boolean;
  /** True if snapshots are cut off on the way, and the network stays away for a while. */
  readonly cutSnapshots: boolean;
  /** True if the log is put back to older copies, and devices start over. */
  readonly restores: boolean;
  /** True if commands at which every machine throws get into the log, and an operator has them skipped. */
  readonly poisons: boolean;
  /** True if some processes have code that throws at some of the poisoned commands only, or at none. */
  readonly mixedCode: boolean;
  /** One append of a server in this many has a fault; 0 for none. */
  readonly appendFaults: number;
  /** One read index of a server in this many is slow or fails; 0 for none. */
  readonly readIndexFaults: number;
  /** True if reads of the servers' log break. */
  readonly brokenReads: boolean;
  /** One step of the servers' snapshot store in this many fails; 0 for none. */
  readonly snapshotFaults: number;
  /** True if processes are suspended. */
  readonly suspensions: boolean;
  /** True if blocks of devices' copies, snapshots and outboxes and of the servers' log are damaged or unreadable. */
  readonly damage: boolean;
  /** True if the servers are hosts of one program, which use each other's sessions and are stopped, never killed. */
  readonly sharesSessions: boolean;
  /** True if the log must be short in the end, once it is compacted. */
  readonly checksLog: boolean;
  /** True if outboxes have writes that are not durable although they said so. */
  readonly lyingSyncs: boolean;
  /** True if some devices are browsers with several tabs, which share a replica. */
  readonly tabs: boolean;
  /** Number of devices that their users look at when time has passed, each time others; 0 for all. */
  readonly looks: number;
}

/** Command or lookup of an application. */
export type WorkStep =
  | {
    readonly kind: "submit";
    readonly device: string;
    readonly cluster: number;
    readonly key: number;
    readonly flag: string;
    readonly filling: number;
  }
  | {
    readonly kind: "propose";
    /** Process that proposes: a device or a server. */
    readonly at: string;
    readonly cluster: number;
    readonly key: number;
    /** Number of the client session, -1 for none. */
    readonly session: number;
    readonly filling: number;
    /** Milliseconds after which the caller gives up; 0 if it does not. */
    readonly abortMs: number;
  }
  | {
    readonly kind: "read" | "staleRead" | "naRead" | "view" | "watch";
    readonly at: string;
    readonly cluster: number;
    /** Key, -1 for all commands. */
    readonly key: number;
  };

/** One step of a world. */
export type Step =
  | WorkStep
  /** Time passes. */
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "session"; readonly at: string; readonly cluster: number }
  | {
    readonly kind: "closeSession";
    readonly cluster: number;
    readonly session: number;
  }
  /** Connections of a process break, or all. */
  | { readonly kind: "cut"; readonly at: string | undefined; readonly how: Cut }
  | { readonly kind: "stall"; readonly at: string; readonly ms: number }
  | {
    readonly kind: "offline" | "online";
    readonly at: string;
    readonly how: Cut;
  }
  /** A process ends; `written` of the writes that are not synced survive a power cut, modulo their number. */
  | {
    readonly kind: "end";
    readonly at: string;
    readonly how: End;
    readonly written: number;
  }
  | { readonly kind: "start"; readonly at: string }
  | {
    readonly kind: "suspend" | "resume";
    readonly at: string;
    readonly lost: boolean;
  }
  | { readonly kind: "expireToken" | "renewToken"; readonly owner: string }
  | { readonly kind: "evict"; readonly cluster: number }
  | { readonly kind: "compact"; readonly at: string; readonly cluster: number }
  | { readonly kind: "copyOutbox"; readonly device: string }
  | { readonly kind: "adoptOutbox"; readonly device: string }
  /** Writes of a device's store fail. */
  | {
    readonly kind: "breakStore";
    readonly at: string;
    readonly store: "outbox" | "copy" | "snapshots" | "machine" | "log";
    readonly after: number;
    readonly times: number;
    readonly how: "full" | "unknown" | "unknown after";
  }
  | { readonly kind: "dismiss"; readonly device: string }
  /** A tab becomes visible, or hidden. */
  | { readonly kind: "show" | "hide"; readonly device: string }
  | { readonly kind: "backup" | "restore" }
  | { readonly kind: "poison"; readonly at: string; readonly cluster: number }
  | { readonly kind: "operate" }
  | { readonly kind: "startOver"; readonly device: string }
  | { readonly kind: "breakReads" | "mendReads"; readonly at: string }
  /** Storage of a device, or of the servers' log, is damaged, found so at the next start. */
  | {
    readonly kind: "damage";
    readonly device: string;
    readonly store: "copy" | "snapshots" | "outbox" | "log";
    readonly how: Damage;
    readonly block: number;
  }
  | {
    readonly kind: "export";
    readonly at: string;
    readonly cluster: number;
    /** Parts that are read before the export is cancelled; 0 to export everything, and import it on another host. */
    readonly parts: number;
  };

/** Everything that is drawn before a world runs. */
export interface Plan {
  readonly seed: number;
  readonly profile: Profile;
  readonly steps: readonly Step[];
}

/** Profile without faults: one server, three devices. */
export const QUIET: Profile = {
  clusters: 1,
  keys: 2,
  servers: [],
  devices: [],
  log: "disk",
  isRemoteLog: false,
  isSlowDisk: false,
  compression: "none",
  snapshotEntries: 0,
  compactionOverhead: 0,
  fullSnapshotInterval: 1,
  sessionsMax: 4096,
  hashEntries: 8,
  snapshotFilling: 0,
  refusals: 0,
  large: 0,
  evictions: false,
  compaction: false,
  tokens: false,
  copies: false,
  fullStores: false,
  powerCuts: false,
  cutSnapshots: false,
  restores: false,
  poisons: false,
  mixedCode: false,
  appendFaults: 0,
  readIndexFaults: 0,
  brokenReads: false,
  snapshotFaults: 0,
  suspensions: false,
  damage: false,
  lyingSyncs: false,
  sharesSessions: false,
  checksLog: false,
  tabs: false,
  looks: 0,
};

/** Faults of a device that tabs do not have in worlds with tabs: each of their processes would need its own share of them. */
const WITHOUT_TABS: Partial<Profile> = {
  fullStores: false,
  restores: false,
  poisons: false,
  mixedCode: false,
  lyingSyncs: false,
};

/** Draws that follow from a seed. */
export class Draws {
  readonly next: () => number;

  constructor(seed: number) {
    this.next = generator(seed);
  }

  below(limit: number): number {
    return this.next() % limit;
  }

  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  clock(isExact: boolean): ClockProfile {
    if (isExact) return { rate: 1, offset: 0 };
    return {
      rate: this.pick([0.9, 0.99, 1, 1, 1.01, 1.1]),
      offset: this.below(1_000_000_000),
    };
  }

  kinds(clusters: number): LedgerKind[] {
    return Array.from({ length: clusters }, () => this.pick(LEDGERS));
  }
}

/** Draws the profile of a seed: a random subset of the faults. */
export function drawProfile(seed: number): Profile {
  const draws = new Draws(derivedSeed(seed, "profile"));
  // Few faults at a time: what one of them would show, another may hide.
  const isOn = (of: number): boolean => draws.oneIn(of);
  const restores = isOn(8);
  const poisons = isOn(8);
  const compaction = isOn(2);
  const partial: Partial<Profile> = {
    clusters: isOn(4) ? 2 : 1,
    keys: 1 + draws.below(4),
    log: isOn(3) ? "memory" : "disk",
    isSlowDisk: isOn(3),
    compression: isOn(12) ? draws.pick(["gzip", "deflate-raw"]) : "none",
    refusals: isOn(3) ? 6 : 0,
    large: isOn(8) ? 12 : 0,
    evictions: isOn(5),
    compaction,
    tokens: isOn(6),
    copies: isOn(8),
    fullStores: isOn(5),
    powerCuts: isOn(5),
    cutSnapshots: compaction && isOn(8),
    restores,
    poisons,
    appendFaults: isOn(3) ? 3 + draws.below(6) : 0,
    readIndexFaults: isOn(3) ? 2 + draws.below(4) : 0,
    brokenReads: isOn(5),
    snapshotFaults: isOn(5) ? 10 : 0,
    suspensions: isOn(4),
    damage: isOn(6),
    lyingSyncs: isOn(12),
    sharesSessions: isOn(3),
  };
  return completed(seed, partial, draws.pick([1, 1, 1, 2, 2, 3]));
}

/** Completes a profile by what follows from its seed. */
export function completed(
  seed: number,
  partial: Partial<Profile>,
  servers = 1,
): Profile {
  const draws = new Draws(derivedSeed(seed, "parts"));
  const profile = {
    ...QUIET,
    ...partial,
    ...(partial.tabs ? WITHOUT_TABS : {}),
  };
  const code = new Draws(derivedSeed(seed, "code"));
  const { clusters, compaction } = profile;
  const isExact = draws.oneIn(2);
  const versions = draws.oneIn(3) ? [0, 1] : [0];
  const isRemoteLog = servers > 1 || draws.oneIn(4);
  const parts: Profile = {
    ...profile,
    isRemoteLog,
    mixedCode: profile.mixedCode || profile.poisons && code.oneIn(2),
    log: profile.restores ? "disk" : profile.log,
    // A sync that lies can take back the record that commands were sent. Their
    // session is then the only witness, and an eviction takes that away as well.
    lyingSyncs: profile.lyingSyncs && !profile.evictions,
    // The same is true of a copy of an outbox.
    copies: profile.copies && !profile.evictions,
    snapshotEntries: compaction ? 8 + draws.below(25) : 0,
    compactionOverhead: compaction ? draws.below(9) : 0,
    fullSnapshotInterval: 1 + draws.below(2),
    sessionsMax: profile.evictions ? 6 : 4096,
    snapshotFilling: profile.cutSnapshots ? 300_000 : 0,
    servers: Array.from({ length: servers }, () => ({
      kinds: draws.kinds(clusters),
      clock: draws.clock(isExact),
      version: draws.pick(versions),
    })),
    devices: Array.from({ length: 2 + draws.below(3) }, (_, i) => {
      const name = "abcd"[i]!;
      const kinds = draws.kinds(clusters);
      return {
        name,
        owner: i > 0 && draws.oneIn(6) ? "a" : name,
        kinds,
        clock: draws.clock(isExact),
        hasCopy: !kinds.includes("disk") && draws.oneIn(2),
        snapshotEntries: draws.oneIn(2) ? 0 : 10 + draws.below(20),
        isSlow: draws.oneIn(3),
        version: draws.pick(versions),
        splitsHosts: clusters > 1 && code.oneIn(2),
        usesAllServers: draws.oneIn(2),
      };
    }),
  };
  if (!parts.tabs) return parts;
  return { ...parts, devices: withTabs(seed, parts.devices) };
}

/** Turns one or two devices into browsers with up to four tabs, each a process of its own. */
function withTabs(
  seed: number,
  devices: readonly DeviceProfile[],
): DeviceProfile[] {
  const draws = new Draws(derivedSeed(seed, "tabs"));
  const origins = 1 + draws.below(2);
  // Machines on disk have one instance.
  const kinds = LEDGERS.filter((kind) => kind !== "disk");
  return devices.slice(0, 3).flatMap((device, i) => {
    if (i >= origins) return [device];
    const tab: DeviceProfile = {
      ...device,
      kinds: device.kinds.map(() => draws.pick(kinds)),
      hasCopy: draws.oneIn(2),
      splitsHosts: false,
      origin: device.name,
    };
    return Array.from({ length: 1 + draws.below(4) }, (_, n) => ({
      ...tab,
      name: n === 0 ? tab.name : `${tab.name}${n + 1}`,
    }));
  });
}

/** Draws the plan of a seed. */
export function drawPlan(seed: number): Plan {
  return drawSteps(seed, drawProfile(seed));
}

/** Draws the steps of a world. */
export function drawSteps(
  seed: number,
  profile: Profile,
  rounds: number = 12 + generator(derivedSeed(seed, "rounds"))() % 14,
): Plan {
  const draws = new Draws(derivedSeed(seed, "steps"));
  const ofTabs = new Draws(derivedSeed(seed, "steps of tabs"));
  const steps: Step[] = [];
  for (let i = 0; i < rounds; i++) {
    for (let n = draws.below(7); n > 0; n--) {
      steps.push(drawWork(draws, profile));
    }
    const fault = drawFault(draws, profile);
    if (fault !== undefined) steps.push(fault);
    if (profile.tabs) steps.push(drawTabStep(ofTabs, profile));
    const isLong = draws.oneIn(12);
    steps.push({ kind: "wait", ms: draws.below(isLong ? 40_000 : 400) });
  }
  return { seed, profile, steps };
}

/** Draws what happens to one of the tabs. */
function drawTabStep(
  draws: Draws,
  { devices, powerCuts, damage, copies }: Profile,
): Step {
  const tabs = devices.filter(({ origin }) => origin !== undefined);
  const { name } = draws.pick(tabs);
  const lost = draws.oneIn(2);
  switch (draws.below(8)) {
    case 0: {
      const how = powerCuts && draws.oneIn(2) ? "power cut" : "kill";
      return { kind: "end", at: name, how, written: draws.below(64) };
    }
    case 1:
      if (damage && draws.oneIn(2)) {
        return {
          kind: "damage",
          device: name,
          store: draws.pick(["copy", "snapshots", "outbox"] as const),
          how: draws.pick(DAMAGES),
          block: draws.below(64),
        };
      }
      return { kind: "end", at: name, how: "stop", written: 0 };
    case 2:
      if (copies && draws.oneIn(4)) {
        return draws.oneIn(4)
          ? { kind: "adoptOutbox", device: `${name}'` }
          : { kind: "copyOutbox", device: name };
      }
      return { kind: "start", at: name };
    case 3:
      return { kind: "start", at: name };
    case 4:
      return { kind: "suspend", at: name, lost };
    case 5:
    case 6:
      return { kind: "resume", at: name, lost };
    default:
      return {
        kind: draws.pick(["show", "hide"] as const),
        device: name,
      };
  }
}

function anyone(draws: Draws, { devices, servers }: Profile): string {
  return draws.oneIn(4)
    ? `s${draws.below(servers.length)}`
    : draws.pick(devices).name;
}

/** Draws a command or a lookup. */
export function drawWork(draws: Draws, profile: Profile): WorkStep {
  const cluster = draws.below(profile.clusters);
  const key = draws.below(profile.keys);
  const isLarge = profile.large > 0 && draws.oneIn(profile.large);
  const filling = isLarge ? draws.pick([300, 300, 5_000, 5_000, 70_000]) : 0;
  const at = anyone(draws, profile);
  switch (draws.below(10)) {
    case 0:
    case 1:
      return {
        kind: "propose",
        at,
        cluster,
        key,
        session: draws.below(4) - 1,
        filling,
        abortMs: draws.oneIn(12) ? draws.below(300) : 0,
      };
    case 2:
    case 3:
      return { kind: "read", at, cluster, key };
    case 4: {
      const kind = draws.pick(
        ["staleRead", "naRead", "view", "watch"] as const,
      );
      return { kind, at, cluster, key: draws.below(profile.keys + 1) - 1 };
    }
    default: {
      const isRefused = profile.refusals > 0 && draws.oneIn(profile.refusals);
      return {
        kind: "submit",
        device: draws.pick(profile.devices).name,
        cluster,
        key,
        flag: isRefused
          ? draws.pick([POISON, DENIED, BAD])
          : profile.mixedCode && draws.oneIn(8)
          ? POISON
          : "",
        filling,
      };
    }
  }
}

/** Draws a fault that may occur in a world, or the end of one. */
export function drawFault(draws: Draws, profile: Profile): Step | undefined {
  const { servers } = profile;
  const cluster = draws.below(profile.clusters);
  const device = draws.pick(profile.devices).name;
  const server = `s${draws.below(servers.length)}`;
  const how = draws.pick(CUTS);
  const written = draws.below(64);
  const lost = draws.oneIn(2);
  const owner = draws.pick(profile.devices).owner;
  const end = (): End =>
    draws.oneIn(3)
      ? "stop"
      : profile.powerCuts && draws.oneIn(2)
      ? "power cut"
      : "kill";
  // A restore needs a complete backup before it.
  if (profile.restores && draws.oneIn(6)) {
    return { kind: draws.pick(["backup", "backup", "restore"] as const) };
  }
  switch (draws.below(26)) {
    case 0:
      return { kind: "cut", at: device, how };
    case 1:
      return { kind: "cut", at: draws.oneIn(2) ? undefined : server, how };
    case 2:
      return { kind: "stall", at: device, ms: draws.below(6_000) };
    case 3:
    case 4:
      return { kind: "offline", at: device, how };
    case 5:
      return { kind: "offline", at: server, how };
    case 6:
      return { kind: "online", at: draws.oneIn(3) ? server : device, how };
    case 7:
      return { kind: "end", at: device, how: end(), written };
    case 8:
      return { kind: "start", at: device };
    case 9:
      return draws.oneIn(3)
        ? { kind: "start", at: server }
        : { kind: "end", at: server, how: end(), written };
    case 10:
      if (!profile.isRemoteLog) return { kind: "start", at: server };
      return draws.oneIn(2)
        ? { kind: "end", at: "log", how: end(), written }
        : { kind: "start", at: "log" };
    case 11:
      if (!profile.tokens) return undefined;
      return {
        kind: draws.pick(["expireToken", "renewToken"] as const),
        owner,
      };
    case 12:
      return profile.evictions ? { kind: "evict", cluster } : undefined;
    case 13:
      return profile.compaction
        ? { kind: "compact", at: draws.oneIn(3) ? device : server, cluster }
        : undefined;
    case 14:
      if (!profile.copies) return undefined;
      return draws.oneIn(4)
        ? { kind: "adoptOutbox", device: `${device}'` }
        : { kind: "copyOutbox", device };
    case 15:
    case 16: {
      if (!profile.fullStores) return undefined;
      const store = draws.pick(
        ["outbox", "outbox", "copy", "snapshots", "machine", "log"] as const,
      );
      return {
        kind: "breakStore",
        at: store === "log" ? server : device,
        store,
        after: draws.below(4),
        times: 1 + draws.below(3),
        how: store === "outbox" || store === "log"
          ? draws.pick(["full", "unknown", "unknown after"] as const)
          : "full",
      };
    }
    case 17:
      return { kind: "dismiss", device };
    case 18:
    case 19:
      if (!profile.restores) return undefined;
      return draws.oneIn(4)
        ? { kind: "startOver", device }
        : { kind: draws.pick(["backup", "restore"] as const) };
    case 20:
      if (!profile.poisons) return undefined;
      return draws.oneIn(3)
        ? { kind: "operate" }
        : { kind: "poison", at: server, cluster };
    case 21:
      return {
        kind: "session",
        at: anyone(draws, profile),
        cluster,
      };
    case 22:
      return draws.oneIn(4)
        ? { kind: "closeSession", cluster, session: draws.below(4) }
        : { kind: "session", at: anyone(draws, profile), cluster };
    case 23:
      if (!profile.suspensions) return undefined;
      return {
        kind: draws.pick(["suspend", "resume"] as const),
        at: draws.oneIn(3) ? server : device,
        lost,
      };
    case 24:
      if (profile.brokenReads && draws.oneIn(2)) {
        return { kind: draws.pick(["breakReads", "mendReads"]), at: server };
      }
      return profile.damage
        ? {
          kind: "damage",
          device,
          store: draws.pick(["copy", "snapshots", "outbox", "log"] as const),
          how: draws.pick(DAMAGES),
          block: draws.below(64),
        }
        : undefined;
    default:
      return {
        kind: "export",
        at: anyone(draws, profile),
        cluster,
        parts: draws.below(4),
      };
  }
}
