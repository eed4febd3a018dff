/**
 * Runs a soak: `deno task soak` kills processes until it is stopped, and checks
 * what they have written down.
 *
 * ```sh
 * deno task soak                            # until it is interrupted
 * deno task soak --kills 2000               # so many kills
 * deno task soak --minutes 30               # so long
 * deno task soak --seed 7 --browsers none   # repeats the draws of a world, in Deno only
 * deno task soak --browsers Firefox,WebKitGTK
 * deno task soak --victims Chromium,Firefox,WebKitGTK   # nothing else is killed
 * deno task soak --log etcd --minutes 20    # servers on etcd, with faults of all kinds
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { stopBundler } from "../../web/bundle.ts";
import { type Engine, ENGINES } from "../browser/browser.ts";
import { install, installEtcd } from "../browser/install.ts";
import { historiesLine, soakHistories } from "../etcd/histories/soak.ts";
import { newSeed } from "../support/random.ts";
import { lastLine, soak } from "./soak.ts";
import { type Victim, VICTIMS } from "./world.ts";

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

/** Number of an option; undefined if it is not given. */
function numberOf(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const number = Number(text);
  if (number > 0 || (name === "seed" && number === 0)) return number;
  throw new RangeError(`--${name} is ${text}; give a number above 0`);
}

/** Items of an option that names some of `all`. */
function itemsOf<T extends string>(
  option: string,
  text: string,
  all: readonly T[],
): T[] {
  if (text === "none") return [];
  if (text === "all") return [...all];
  return text.split(",").map((name) => {
    const item = all.find((one) => one === name);
    if (item !== undefined) return item;
    throw new RangeError(
      `--${option} names ${name}; give all, none, or some of ${all.join()}`,
    );
  });
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      kills: { type: "string" },
      minutes: { type: "string" },
      seed: { type: "string" },
      browsers: { type: "string", default: "all" },
      victims: { type: "string", default: "all" },
      log: { type: "string", default: "sqlite" },
    },
  });
  const seed = numberOf("seed", values.seed) ?? newSeed();
  const minutes = numberOf("minutes", values.minutes);
  const [log] = itemsOf("log", values.log, ["sqlite", "etcd"]);
  if (log === "etcd") {
    await installEtcd(say);
    say(`Seed ${seed}`);
    const result = await soakHistories({
      seed,
      ms: (minutes ?? Infinity) * 60_000,
      say,
    });
    say(historiesLine(result));
    Deno.exit(result.violations.length === 0 ? 0 : 1);
  }
  const engines: Engine[] = itemsOf("browsers", values.browsers, ENGINES);
  const victims: Victim[] = itemsOf("victims", values.victims, VICTIMS);
  if (engines.length > 0) await install(say);
  say(`Seed ${seed}`);
  const result = await soak({
    seed,
    kills: numberOf("kills", values.kills) ?? Infinity,
    ms: minutes === undefined ? undefined : minutes * 60_000,
    engines,
    victims,
    say,
  });
  await stopBundler();
  say(lastLine(result));
  Deno.exit(result.violations.length === 0 ? 0 : 1);
}
