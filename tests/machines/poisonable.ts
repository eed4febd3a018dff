/**
 * A machine that throws at some commands, as one with a bug in its decoder does.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Result } from "../../mod.ts";
import { JournalMachine } from "./client_counters.ts";

/** A {@linkcode JournalMachine} that throws at every command of the client `poison`. */
export class PoisonableMachine extends JournalMachine {
  override update(cmd: Uint8Array): Result {
    if (new TextDecoder().decode(cmd).startsWith("poison ")) {
      throw new TypeError(
        "Cannot read properties of undefined (reading 'length')",
      );
    }
    return super.update(cmd);
  }
}
