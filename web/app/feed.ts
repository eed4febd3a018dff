/**
 * Machines of a board that tell when they have applied entries. Beside another device
 * they post those in sentences, too, by code that is loaded for that.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { TypedMachine } from "../../src/typed/mod.ts";
import { board } from "./board.ts";
import type { Postings, Standing } from "./postings.ts";

/** Log of one device. */
export class Feed {
  readonly #postings: Postings | undefined;
  /** Called after entries were applied. */
  onApplied: () => void = () => {};

  /** Feed of a device; `postings` posts what it applies. */
  constructor(postings: Postings | undefined) {
    this.#postings = postings;
  }

  /** Sets how the commands that wait on this device are found. */
  set pending(pending: () => readonly { readonly cmd: Uint8Array }[]) {
    if (this.#postings !== undefined) this.#postings.pending = pending;
  }

  /** Tells where the device stands. */
  stand(standing: Standing): void {
    this.#postings?.stand(standing);
  }

  /** Creates machines of which the entries they apply are told; their forks are not. */
  readonly create = (): TypedMachine => {
    const machine = board.create();
    const update = machine.update.bind(machine);
    const posting = this.#postings?.updating(machine, update) ?? update;
    machine.update = (entries): ReturnType<typeof update> => {
      const updated = posting(entries);
      this.onApplied();
      return updated;
    };
    return machine;
  };
}

/** Creates the feed of a device of a board; one that is shown alone posts nothing. */
export async function openFeed(name: string, device: string): Promise<Feed> {
  if (device === "here") return new Feed(undefined);
  try {
    const { Postings } = await import("./postings.ts");
    return new Feed(
      new Postings(name, device, (cmd, result) => board.decode(cmd, result)),
    );
  } catch {
    // Not on this device yet, and no network: the board is shown all the same.
    return new Feed(undefined);
  }
}
