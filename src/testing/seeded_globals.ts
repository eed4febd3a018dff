/**
 * Deterministic replacements of the sources of nondeterminism that a machine must not
 * read: `Date`, `performance.now()`, `Math.random()` and `crypto`.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Creates a seeded generator of 32-bit random numbers (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed | 0;
  return (): number => {
    state = (state + 0x6D2B79F5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

type Patch = readonly [target: object, key: PropertyKey, value: unknown];

/** Installs patches; returns a function that removes them. */
function put(patches: readonly Patch[]): () => void {
  const undo: (() => void)[] = [];
  const restore = (): void => {
    for (const step of undo.splice(0).reverse()) step();
  };
  try {
    for (const [target, key, value] of patches) {
      const own = Object.getOwnPropertyDescriptor(target, key);
      Object.defineProperty(target, key, {
        value,
        configurable: true,
        writable: true,
        enumerable: own?.enumerable ?? false,
      });
      undo.push(() => {
        if (own !== undefined) Object.defineProperty(target, key, own);
        else Reflect.deleteProperty(target, key);
      });
    }
  } catch (error) {
    restore();
    throw error;
  }
  return restore;
}

/** Creates a `Date` whose present is `now()`, also for `new Date()` and `Date()`. */
function dateOf(now: () => number): DateConstructor {
  return new Proxy(Date, {
    construct: (target, args, newTarget): object =>
      Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget),
    apply: (target): string => new target(now()).toString(),
  });
}

function patchesOf(seed: number): Patch[] {
  const random = randomOf(seed);
  // Every reading differs from the last, and those of different seeds are years
  // apart.
  let time = 1_000_000_000_000 + random() * 100;
  const now = (): number => time += 1 + random() % 1000;
  const fill = <T extends ArrayBufferView>(view: T): T => {
    const bytes = new Uint8Array(
      view.buffer,
      view.byteOffset,
      view.byteLength,
    );
    for (let i = 0; i < bytes.length; i++) bytes[i] = random();
    return view;
  };
  const uuid = (): string => {
    const hex = Array.from(
      fill(new Uint8Array(16)),
      (byte) => byte.toString(16).padStart(2, "0"),
    ).join("");
    return hex.replace(
      /^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/,
      "$1-$2-4$3-8$4-$5",
    );
  };
  return [
    [globalThis, "Date", dateOf(now)],
    // Also for code that captured the real `Date` before.
    [Date, "now", now],
    [performance, "now", (): number => now() - 1_000_000_000_000],
    [Math, "random", (): number => random() / 2 ** 32],
    [crypto, "getRandomValues", fill],
    [crypto, "randomUUID", uuid],
  ];
}

/**
 * Runs `run` with a clock and random numbers derived from `seed`, and restores
 * the real ones once it has settled. Timers are real.
 */
export async function withSeededGlobals<T>(
  seed: number,
  run: () => Promise<T>,
): Promise<T> {
  const restore = put(patchesOf(seed));
  try {
    return await run();
  } finally {
    restore();
  }
}

let last: Promise<unknown> = Promise.resolve();

/** Serializes runs: clock and random numbers are global, so concurrent suites would undo each other's. */
export function runExclusively<T>(run: () => Promise<T>): Promise<T> {
  const result = last.then(run);
  last = result.catch(() => {});
  return result;
}
