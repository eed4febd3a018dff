/**
 * Soak: worlds of real processes, one after the other, whose server, devices and
 * browsers are killed with SIGKILL in random order.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { Engine } from "../browser/browser.ts";
import { type PageServer, servePages } from "../browser/server.ts";
import { seeded } from "../support/random.ts";
import { type Kills, runWorld, type Victim } from "./world.ts";

/** Least and most kills of one world. */
const WORLD_KILLS_MIN = 40;
const WORLD_KILLS_MAX = 120;

/** Options of a soak. */
export interface SoakOptions {
  /** Seed of the first world, from which those of the others follow. */
  readonly seed: number;
  /** Number of kills after which it ends. */
  readonly kills: number;
  /** Time after which it ends, in milliseconds. */
  readonly ms?: number | undefined;
  /** Engines of the browsers: each world has one of them in turn. */
  readonly engines?: readonly Engine[];
  /** Number of devices in Deno of each world; by default 1 to 3. */
  readonly devices?: number;
  /** Kinds of processes that are killed; by default all. */
  readonly victims?: readonly Victim[];
  /** Called with each line of progress. */
  readonly say?: (line: string) => void;
}

/** Result of a soak. */
export interface SoakResult {
  readonly kills: Kills;
  readonly violations: readonly string[];
}

/** Number of kills of all victims. */
export function total(kills: Kills): number {
  return Object.values(kills).reduce((sum, count) => sum + count, 0);
}

/** Runs worlds until the kills or the time are reached. */
export async function soak(options: SoakOptions): Promise<SoakResult> {
  const { seed, kills: most, ms = Infinity, engines = [], victims } = options;
  const { say = (): void => {} } = options;
  const kills: Kills = {
    server: 0,
    device: 0,
    Chromium: 0,
    Firefox: 0,
    WebKitGTK: 0,
  };
  const violations: string[] = [];
  const from = performance.now();
  const isDone = (): boolean =>
    total(kills) >= most || performance.now() - from >= ms;
  await using pages: PageServer | undefined = engines.length === 0
    ? undefined
    : servePages();
  for (let world = 0; !isDone(); world++) {
    const worldSeed = (seed + world) >>> 0;
    const random = seeded(worldSeed);
    const end = total(kills) + WORLD_KILLS_MIN +
      random.below(WORLD_KILLS_MAX - WORLD_KILLS_MIN);
    const engine = engines[world % engines.length];
    const result = await runWorld({
      seed: worldSeed,
      devices: options.devices ?? 1 + random.below(3),
      engine,
      pages,
      victims,
      killed(victim: Victim): boolean {
        kills[victim]++;
        return total(kills) >= end || isDone();
      },
    });
    violations.push(
      ...result.violations.map((text) => `World ${worldSeed}: ${text}`),
    );
    for (const text of result.violations) say(`Violation: ${text}`);
    say(
      `World ${worldSeed}${
        engine === undefined ? "" : `, ${engine}`
      }: ${result.operations} operations, ${result.acknowledged} acknowledged, ${result.views} views compared; ${
        lastLine({ kills, violations })
      }`,
    );
  }
  return { kills, violations };
}

/** Last line of a soak. */
export function lastLine({ kills, violations }: SoakResult): string {
  const { server, device, Chromium, Firefox, WebKitGTK } = kills;
  return `${
    total(kills)
  } kills (server ${server}, device ${device}, Chromium ${Chromium}, Firefox ${Firefox}, WebKit ${WebKitGTK}), ${violations.length} violations`;
}
