/**
 * Monotonic clock that all processes of this machine share.
 *
 * This module needs Deno on Linux.
 *
 * @module
 */

const CLOCK_MONOTONIC = 1;

const { symbols } = Deno.dlopen("libc.so.6", {
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
});

const time = new BigInt64Array(2);

/** Returns the time since the start of the machine, in nanoseconds. */
export function nanoseconds(): number {
  symbols.clock_gettime(CLOCK_MONOTONIC, time);
  return Number(time[0]! * 1_000_000_000n + time[1]!);
}
