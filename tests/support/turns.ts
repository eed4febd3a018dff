/**
 * Turns of the event loop and of the microtask queue.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Waits for one turn of the event loop. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** Waits for some microtasks. */
export async function ticks(count = 10): Promise<void> {
  for (let i = 0; i < count; i++) await undefined;
}
