/**
 * An order of use: what was used last is newest.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** A place in an order; something has one in each order it is in. */
export interface Place<T> {
  readonly of: T;
  newer: Place<T> | undefined;
  older: Place<T> | undefined;
}

/** Things in the order in which they were used. */
export class UseOrder<T> {
  oldest: Place<T> | undefined;
  newest: Place<T> | undefined;
  /** How many there are. */
  size = 0;

  /** Adds what was just used. */
  add(of: T): Place<T> {
    const place: Place<T> = { of, newer: undefined, older: undefined };
    this.size++;
    this.#link(place);
    return place;
  }

  /** Takes something out. */
  remove(place: Place<T>): void {
    this.size--;
    this.#unlink(place);
  }

  /** Notes a use. */
  touch(place: Place<T>): void {
    if (place === this.newest) return;
    this.#unlink(place);
    this.#link(place);
  }

  #link(place: Place<T>): void {
    place.older = this.newest;
    place.newer = undefined;
    if (this.newest === undefined) this.oldest = place;
    else this.newest.newer = place;
    this.newest = place;
  }

  #unlink({ newer, older }: Place<T>): void {
    if (newer === undefined) this.newest = older;
    else newer.older = older;
    if (older === undefined) this.oldest = newer;
    else older.newer = newer;
  }
}
