/**
 * Edits that an application can undo and redo: those of one author, in the order
 * in which they were made on this device.
 *
 * An edit is undone by another command, which the definition computes from the
 * state before the edit, and which is decided on its own when it arrives (Y10).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { notify } from "../async.ts";
import { UNDO_EDITS_MAX } from "../limits.ts";
import type { Envelope } from "./command.ts";
import {
  type CommandCall,
  type Follower,
  type MachineCore,
  otherSeed,
  seedKey,
  UNDOING,
} from "./core.ts";

/** Edit of an application, or the undoing of one, with its outcome. */
export interface DecidedEdit {
  readonly result: Promise<{ readonly ok: boolean }>;
}

/** Command to be submitted with a seed of its own. */
export interface SeededCall extends CommandCall {
  readonly seed: Uint8Array;
}

/** Dependencies of a history. */
export interface HistoryParts<E extends DecidedEdit> {
  /** Definition of the machine. */
  readonly core: Pick<MachineCore, "commands" | "followers">;
  /** Returns the author of new commands. */
  author(): string | null;
  /** Submits a command. */
  submit(call: SeededCall): Promise<E>;
  /** Runs pending commands on a copy of the committed state. */
  run(): Promise<void>;
}

/** Edit that can be undone or redone. */
interface Step extends SeededCall {
  readonly key: string;
  readonly by: string | null;
  /** Notes its inverse. */
  follower?: Follower;
  /** Settles once it is submitted. */
  submitted: Promise<unknown>;
  /** Command that undoes it, undefined for none; or the error in its place. Not set until the edit was run. */
  inverse?: { readonly call: CommandCall | undefined } | {
    readonly error: unknown;
  };
}

/** Seed of an edit that a history can tell from one that undoes another. */
export function editSeed(seed: Uint8Array): Uint8Array {
  const copy = new Uint8Array(seed);
  copy[0] = copy[0]! & ~UNDOING;
  return copy;
}

/** History of the edits of an application. */
export class EditHistory<E extends DecidedEdit> {
  readonly #parts: HistoryParts<E>;
  #done: Step[] = [];
  #undone: Step[] = [];
  readonly #listeners = new Set<() => void>();
  /** Number of undos, redos and edits after them that are not submitted yet. */
  #turns = 0;
  /** Settles once the last of those was submitted. */
  #last: Promise<unknown> = Promise.resolve();

  /** Creates an empty history. */
  constructor(parts: HistoryParts<E>) {
    this.#parts = parts;
  }

  /** True if there is an edit to undo. */
  get canUndo(): boolean {
    return this.#done.some((step) => this.#isOpen(step));
  }

  /** True if there is an edit to redo. */
  get canRedo(): boolean {
    return this.#undone.some((step) => this.#isOpen(step));
  }

  #isOpen({ by, inverse }: Step): boolean {
    return by === this.#parts.author() &&
      !(inverse !== undefined && "call" in inverse &&
        inverse.call === undefined);
  }

  /** Calls `listener` after each change; returns a function that ends it. */
  onChange(listener: () => void): () => void {
    const own = (): void => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) notify(listener);
  }

  /** True if a command can be undone. */
  isUndoable(name: string): boolean {
    return this.#parts.core.commands.get(name)?.inverse !== undefined;
  }

  /** Submits an edit that can be undone, and adds it. */
  async add(call: SeededCall): Promise<E> {
    const step = this.#step(call, this.#parts.author());
    const undone = this.#undone;
    this.#undone = [];
    this.#push(step);
    const edit = this.#parts.submit(call);
    step.submitted = edit.catch(() => {});
    try {
      return this.#submitted(step, await edit);
    } catch (error) {
      this.#undone = undone;
      this.#drop(step);
      throw error;
    }
  }

  /** Adds a command that an earlier process has queued, oldest first. */
  restore(
    { name, seed, by }: Envelope,
    args: unknown,
    edit: () => DecidedEdit,
  ): void {
    const key = seedKey(seed);
    if ((seed[0]! & UNDOING) !== 0) {
      const at = this.#done.findIndex((step) =>
        seedKey(otherSeed(step.seed)) === key
      );
      if (at >= 0) this.#undone.push(...this.#done.splice(at, 1));
      return;
    }
    const at = this.#undone.findIndex((step) => step.key === key);
    if (at >= 0) this.#done.push(...this.#undone.splice(at, 1));
    else if (this.isUndoable(name)) {
      const step = this.#step({ name, args, seed }, by);
      this.#undone = [];
      this.#push(step);
      this.#submitted(step, edit());
    }
  }

  #step({ name, args, seed }: SeededCall, by: string | null): Step {
    const submitted = Promise.resolve();
    return { name, args, seed, by, key: seedKey(seed), submitted };
  }

  #push(step: Step): void {
    this.#done.push(step);
    if (this.#done.length > UNDO_EDITS_MAX) this.#done.shift();
    this.#follow(step);
    this.#changed();
  }

  /** Notes the inverse whenever the edit is run: the last time is when it is committed. */
  #follow(step: Step): void {
    const { followers, commands } = this.#parts.core;
    const all = followers.get(step.key) ?? new Set();
    followers.set(step.key, all);
    if (step.follower !== undefined) all.delete(step.follower);
    all.add(
      step.follower = (before, args, context) => {
        let inverse: Step["inverse"];
        try {
          const call = commands.get(step.name)!.inverse!(before, args, context);
          inverse = { call };
        } catch (error) {
          inverse = { error };
        }
        return (isAccepted) => {
          step.inverse = isAccepted ? inverse : { call: undefined };
        };
      },
    );
  }

  #drop(step: Step): void {
    this.#done = this.#done.filter((other) => other !== step);
    this.#undone = this.#undone.filter((other) => other !== step);
    this.#changed();
  }

  /** Drops an edit that is rejected: there is nothing to undo, or nothing to redo. */
  #submitted<D extends DecidedEdit>(step: Step, edit: D): D {
    const { followers } = this.#parts.core;
    const { follower } = step;
    const end = (): void => {
      const all = followers.get(step.key);
      // Not that of the same edit, redone.
      if (follower === undefined || !all?.delete(follower)) return;
      if (all.size === 0) followers.delete(step.key);
    };
    edit.result.then(({ ok }) => {
      end();
      if (!ok) this.#drop(step);
    }, end);
    return edit;
  }

  /** Takes the newest edit of the author off a list. */
  #take(from: Step[]): Step | undefined {
    const at = from.findLastIndex((step) => this.#isOpen(step));
    return at < 0 ? undefined : from.splice(at, 1)[0];
  }

  /** Undoes the newest edit of the author; resolves with undefined if nothing is left. */
  undo(): Promise<E | undefined> {
    return this.#inTurn(() => this.#undo());
  }

  async #undo(): Promise<E | undefined> {
    for (;;) {
      const step = this.#take(this.#done);
      if (step === undefined) return undefined;
      try {
        await step.submitted;
        if (step.inverse === undefined) await this.#parts.run();
        const { inverse } = step;
        if (inverse !== undefined && "error" in inverse) throw inverse.error;
        // Of no effect on the state in which it was decided: the one before is undone.
        if (inverse?.call === undefined) continue;
        this.#undone.push(step);
        const { name, args } = inverse.call;
        const seed = otherSeed(step.seed);
        const edit = await this.#parts.submit({ name, args, seed });
        return this.#submitted(step, edit);
      } catch (error) {
        this.#drop(step);
        throw error;
      } finally {
        this.#changed();
      }
    }
  }

  /** Submits the edit that was undone last again; resolves with undefined if nothing is left. */
  redo(): Promise<E | undefined> {
    return this.#inTurn(() => this.#redo());
  }

  async #redo(): Promise<E | undefined> {
    const step = this.#take(this.#undone);
    if (step === undefined) return undefined;
    this.#push(step);
    try {
      return this.#submitted(step, await this.#parts.submit(step));
    } catch (error) {
      this.#drop(step);
      throw error;
    }
  }

  /** Makes an edit at once, or after the undos and redos that are under way: in the order of the calls. */
  edit<T>(make: () => Promise<T>): Promise<T> {
    return this.#turns === 0 ? make() : this.#inTurn(make);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turns++ === 0 ? work() : this.#last.then(work);
    const end = (): void => void this.#turns--;
    this.#last = turn.then(end, end);
    return turn;
  }
}
