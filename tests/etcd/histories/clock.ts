/**
 * Monotonic clock that all processes of this machine share, and a time of day that
 * jumps, as when the clock is set.
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

/** Milliseconds by which the time of day is wrong in this process. */
let wrongBy = 0;

/** Sets the time of day in this process forward, or back if `ms` is negative. */
export function jump(ms: number): void {
  if (globalThis.Date === RightDate) globalThis.Date = JumpingDate;
  wrongBy += ms;
}

const RightDate = Date;

/** Date whose present time is wrong. */
const JumpingDate: DateConstructor = new Proxy(RightDate, {
  construct: (target, args, newTarget) =>
    Reflect.construct(target, args.length > 0 ? args : [now()], newTarget),
  get: (target, name) => name === "now" ? now : Reflect.get(target, name),
});

function now(): number {
  return RightDate.now() + wrongBy;
}
