/**
 * Edits of the person at this page: submitted, and told from those of others.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { BoardApp } from "./device.ts";

/** Milliseconds for which a change of a card that this person has edited is taken for that edit. */
const OWN_MS = 2_000;

/** Part of a page that speaks to the person. */
export interface Voice {
  /** Says something to a screen reader, when it has said the rest. */
  say(text: string): void;
  /** Shows an error. */
  complain(error: unknown): void;
}

/** Submits edits. */
export class Actions {
  readonly #app: BoardApp;
  readonly #voice: Voice;
  readonly #own = new Map<string, number>();
  #quietUntil = 0;
  /** Numbers of edits that are being stored, by card or list: the board has them, and `app.pending()` does not yet. */
  readonly #storing = new Map<string, number>();
  /** Number of undos and redos that are being stored. */
  #turning = 0;
  /** Cards that have changed in the meantime. */
  readonly #turned = new Set<string>();
  readonly #listeners = new Set<() => void>();
  #editedAt = -OWN_MS;
  /** Number of changes of what is being stored. */
  revision = 0;

  /** Actions on a board. */
  constructor(app: BoardApp, voice: Voice) {
    this.#app = app;
    this.#voice = voice;
  }

  /** Commands by name. */
  get do(): BoardApp["do"] {
    return this.#app.do;
  }

  /** Follows an edit of the card or list with an id: an error in submitting it is shown. */
  run(edit: Promise<unknown>, id: string): void {
    this.#editedAt = performance.now();
    this.#own.set(id, this.#editedAt + OWN_MS);
    this.#store(id, 1);
    const stored = (): void => this.#store(id, -1);
    edit.then(stored, (error) => {
      stored();
      this.#voice.complain(error);
    });
  }

  #store(id: string, more: number): void {
    const count = (this.#storing.get(id) ?? 0) + more;
    if (count === 0) this.#storing.delete(id);
    else this.#storing.set(id, count);
    this.#changed();
  }

  #changed(): void {
    this.revision++;
    for (const listener of this.#listeners) listener();
  }

  /** Number of edits that are being stored. */
  get storing(): number {
    return [...this.#storing.values()].reduce((sum, count) => sum + count, 0) +
      this.#turning;
  }

  /** True while an edit of a card or list is being stored: it is pending, like those that wait to be sent. */
  isStoring(id: string): boolean {
    return this.#storing.has(id) || this.#turned.has(id);
  }

  /** Notes that a card has changed: while an undo is being stored, by that. */
  noteChange(id: string): void {
    if (this.#turning > 0) this.#turned.add(id);
  }

  /** Calls `listener` after each change of what is being stored. */
  onStoring(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** True if a change of a card may be an edit of this person. */
  isOwn(id: string): boolean {
    const now = performance.now();
    return now < this.#quietUntil || now < (this.#own.get(id) ?? 0);
  }

  /** True if this person has made an edit just now, and waits for it to be shown. */
  get isAwaited(): boolean {
    return performance.now() < this.#editedAt + OWN_MS / 2;
  }

  /** Undoes the newest edit. */
  undo(): Promise<void> {
    return this.#turn(() => this.#app.undo(), "undo", "Undone");
  }

  /** Redoes the edit that was undone last. */
  redo(): Promise<void> {
    return this.#turn(() => this.#app.redo(), "redo", "Redone");
  }

  async #turn(
    work: () => Promise<unknown>,
    what: string,
    done: string,
  ): Promise<void> {
    this.#editedAt = performance.now();
    this.#quietUntil = this.#editedAt + OWN_MS;
    this.#turning++;
    this.#changed();
    try {
      const edit = await work();
      this.#voice.say(edit === undefined ? `Nothing to ${what}` : done);
    } catch (error) {
      this.#voice.complain(error);
    } finally {
      this.#turning--;
      if (this.#turning === 0) this.#turned.clear();
      this.#changed();
    }
  }
}
