/**
 * Worlds with as many devices, clusters and servers as are asked for: each device
 * has one or two of the clusters, each server has all of them, and what happens grows
 * with the number of devices.
 *
 * @module
 */

import { derivedSeed } from "../../src/testing/simulated_clock.ts";
import { LEDGERS } from "./machines.ts";
import {
  type DeviceProfile,
  drawFault,
  Draws,
  drawWork,
  type Plan,
  type Profile,
  QUIET,
  type Step,
} from "./plan.ts";

/** Size of a crowd. */
export interface CrowdSize {
  readonly devices: number;
  readonly clusters: number;
  readonly servers: number;
}

/** Rounds of a crowd, each a few commands and faults and some time. */
const ROUNDS = 12;

/** Devices of which one is busy, and one fails, in a round. */
const BUSY = 10;
const FAILING = 200;

/** Devices that their users look at each time. */
const LOOKS = 100;

/**
 * Draws the plan of a crowd. Its faults are those that leave every promise standing:
 * connections break, processes are stopped, killed, suspended and cut off, appends and
 * read indexes fail, commands are refused, and the log is compacted.
 */
export function drawCrowd(seed: number, size: CrowdSize): Plan {
  const draws = new Draws(derivedSeed(seed, "crowd"));
  const { clusters } = size;
  const isExact = draws.oneIn(2);
  const devices = Array.from({ length: size.devices }, (_, i) => {
    const name = `d${i}`;
    // Each cluster has its share, and some devices have a second one.
    const own = [i % clusters];
    const other = draws.below(clusters);
    if (draws.oneIn(4) && !own.includes(other)) own.push(other);
    const kinds = own.map(() => draws.pick(LEDGERS));
    const device: DeviceProfile = {
      name,
      owner: name,
      kinds,
      clusters: own,
      clock: draws.clock(isExact),
      hasCopy: !kinds.includes("disk") && draws.oneIn(2),
      snapshotEntries: draws.oneIn(2) ? 0 : 10 + draws.below(20),
      isSlow: draws.oneIn(3),
      version: draws.below(2),
      splitsHosts: false,
      usesAllServers: draws.oneIn(2),
    };
    return device;
  });
  const profile: Profile = {
    ...QUIET,
    clusters,
    keys: 3,
    servers: Array.from({ length: size.servers }, () => ({
      kinds: draws.kinds(clusters),
      clock: draws.clock(isExact),
      version: draws.below(2),
    })),
    devices,
    isRemoteLog: true,
    refusals: 6,
    compaction: true,
    snapshotEntries: 24,
    compactionOverhead: 8,
    fullSnapshotInterval: 2,
    appendFaults: 8,
    readIndexFaults: 6,
    suspensions: true,
    looks: LOOKS,
  };
  return { seed, profile, steps: drawSteps(draws, profile) };
}

function drawSteps(draws: Draws, profile: Profile): Step[] {
  const steps: Step[] = [];
  const { devices } = profile;
  const clustersOf = new Map(devices.map((one) => [one.name, one.clusters!]));
  /** Has a step concern a cluster that its device has. */
  const fitted = <T extends Step>(step: T): T => {
    if (!("cluster" in step)) return step;
    const at = "at" in step ? step.at : "device" in step ? step.device : "";
    const own = clustersOf.get(at as string);
    if (own === undefined) return step;
    return { ...step, cluster: own[step.cluster % own.length]! };
  };
  for (let i = 0; i < ROUNDS; i++) {
    for (let n = Math.ceil(devices.length / BUSY); n > 0; n--) {
      steps.push(fitted(drawWork(draws, profile)));
    }
    for (let n = Math.ceil(devices.length / FAILING); n > 0; n--) {
      const fault = drawFault(draws, profile);
      if (fault !== undefined) steps.push(fitted(fault));
    }
    steps.push({ kind: "wait", ms: draws.below(400) });
  }
  return steps;
}
