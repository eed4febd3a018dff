import { ErrNewerCode } from "../../src/statemachine/errors.ts";
import type {
  IFork,
  IStateMachine,
  Result,
} from "../../src/statemachine/mod.ts";
import { serveMachine } from "../../src/worker/mod.ts";
import { text } from "../support/bytes.ts";
import { RegularNotes } from "../machines/notes.ts";

/** Machine that does what a command says. */
class Faulty extends RegularNotes implements IFork<IStateMachine> {
  override update(cmd: Uint8Array): Result | Promise<Result> {
    switch (text(cmd)) {
      case "range":
        throw new RangeError("Value 7 is out of range", {
          cause: new TypeError("Cause of 7"),
        });
      case "newer":
        return Promise.reject(new ErrNewerCode("Command 7 needs newer code"));
      case "none":
        return undefined as unknown as Result;
      case "crash":
        setTimeout(() => {
          throw new Error("Crash");
        });
        return new Promise(() => {});
    }
    return { value: super.update(cmd) ? 1n : 0n };
  }
  override lookup(query: unknown): unknown {
    return query === "function" ? () => {} : super.lookup(query);
  }
  fork(): RegularNotes {
    const fork = new RegularNotes();
    fork.notes = new Map(this.notes);
    return fork;
  }
}

serveMachine((clusterID) => {
  if (clusterID === 9n) throw new Error("No machine for cluster 9");
  return new Faulty();
});
