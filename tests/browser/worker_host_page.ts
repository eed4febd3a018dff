/**
 * Page whose host runs in a worker, as the guide to machines shows it: this module is
 * that of both.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type HallHost, openHall } from "../../web/guide/hall.ts";
import type { Hall } from "../../web/guide/hall_host.ts";

if (globalThis.document === undefined) {
  await import("../../web/guide/hall_host.ts");
}

let hall: HallHost | undefined;
let shown: Hall | undefined;
let changed = (): void => {};

function open(): HallHost {
  return hall ??= openHall(
    () => new Worker(import.meta.url, { type: "module" }),
    (now) => {
      shown = now;
      changed();
    },
    (reason) => {
      throw new Error(`Host has failed: ${reason}`);
    },
  );
}

/** Resolves with what the page shows, once it satisfies the condition. */
async function until(isReached: (hall: Hall) => boolean): Promise<Hall> {
  while (shown === undefined || !isReached(shown)) {
    await new Promise<void>((resolve) => changed = resolve);
  }
  return shown;
}

/** Books a seat for two people, and resolves with what is shown once both are decided. */
export async function book(seat: string): Promise<Hall> {
  const { submit } = open();
  await Promise.all(
    ["Ada", "Bob"].map((name) => submit({ type: "book", seat, name })),
  );
  return await until(({ waiting, refused }) =>
    waiting === 0 && refused.length > 0
  );
}

/** Dismisses what was refused, stops the host, and starts it again; resolves with what is shown then. */
export async function restart(): Promise<Hall> {
  for (const { id } of shown!.refused) hall!.dismiss(id);
  await until(({ refused }) => refused.length === 0);
  await hall!.stop();
  hall = shown = undefined;
  open();
  return await until(({ bookings }) => Object.keys(bookings).length > 0);
}
