/**
 * State machine that detects lost, duplicated and reordered commands: each client
 * numbers its commands, and the machine records every unexpected number.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { IStateMachine, Result } from "../../mod.ts";

/** Answer of a {@linkcode JournalMachine} to every query. */
export interface Journal {
  /** Last number applied of each client. */
  readonly last: Readonly<Record<string, number>>;
  /** First commands whose number was not the next of their client. */
  readonly wrong: readonly string[];
}

/** Most wrong commands recorded. */
const WRONG_MAX = 20;

/** Encodes the command with a client's number, counted from 1. */
export function entry(client: string, number: number): Uint8Array {
  return new TextEncoder().encode(`${client} ${number}`);
}

/** State machine with a count per client and a hash of all commands in order. */
export class JournalMachine implements IStateMachine {
  #last = new Map<string, number>();
  #wrong: string[] = [];
  #high = 0x811c9dc5;
  #low = 0x01000193;

  update(cmd: Uint8Array): Result {
    const [client, number] = new TextDecoder().decode(cmd).split(" ") as [
      string,
      string,
    ];
    const last = this.#last.get(client) ?? 0;
    if (Number(number) !== last + 1 && this.#wrong.length < WRONG_MAX) {
      this.#wrong.push(`${client} ${number} after ${last}`);
    }
    this.#last.set(client, Number(number));
    for (const byte of cmd) {
      this.#high = Math.imul(this.#high ^ byte, 0x01000193);
      this.#low = Math.imul(this.#low + byte, 0x85ebca6b) ^ this.#high >>> 15;
    }
    return { value: BigInt(number) };
  }

  lookup(): Journal {
    return { last: Object.fromEntries(this.#last), wrong: [...this.#wrong] };
  }

  getHash(): bigint {
    return BigInt(this.#high >>> 0) << 32n | BigInt(this.#low >>> 0);
  }

  async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    const state = [[...this.#last], this.#wrong, this.#high, this.#low];
    const writer = w.getWriter();
    await writer.write(new TextEncoder().encode(JSON.stringify(state)));
    await writer.close();
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    const [last, wrong, high, low] = await new Response(r).json();
    this.#last = new Map(last);
    this.#wrong = wrong;
    this.#high = high;
    this.#low = low;
  }

  close(): void {}
}
