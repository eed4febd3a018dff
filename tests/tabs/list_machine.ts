/**
 * Machine that keeps a list of texts, one for each command.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { IStateMachine } from "../../src/statemachine/machines.ts";
import type { Result } from "../../src/statemachine/types.ts";

/** List of texts, whose forks throw at "poison". */
export class ListMachine implements IStateMachine<null, readonly string[]> {
  #list: readonly string[];

  constructor(list: readonly string[] = []) {
    this.#list = list;
  }

  update(cmd: Uint8Array): Result {
    const list = [...this.#list, new TextDecoder().decode(cmd)];
    this.#list = list;
    return { value: BigInt(list.length) };
  }

  lookup(): readonly string[] {
    return this.#list;
  }

  fork(): IStateMachine<null, readonly string[]> {
    const fork = new ListMachine(this.#list);
    const update = fork.update.bind(fork);
    fork.update = (cmd) => {
      if (new TextDecoder().decode(cmd).endsWith("poison")) {
        throw new Error("Poison");
      }
      return update(cmd);
    };
    return fork;
  }

  async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    const writer = w.getWriter();
    await writer.write(new TextEncoder().encode(JSON.stringify(this.#list)));
    await writer.close();
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    // Not by a Response, which takes turns of the event loop.
    let text = "";
    const reader = r.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += new TextDecoder().decode(value);
    }
    this.#list = JSON.parse(text);
  }

  close(): void {}
}
