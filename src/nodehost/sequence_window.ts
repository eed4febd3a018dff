/**
 * Window over items with consecutive numbers.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Items with consecutive numbers, removed in about the order they were added. */
export class SequenceWindow<T> {
  #items: (T | undefined)[] = [];
  #head = 0;
  #size = 0;
  /** Number of the first item in the window. */
  first = 1;

  /** Number of the item that is added next. */
  get next(): number {
    return this.first + this.#items.length - this.#head;
  }

  /** Number of items. */
  get size(): number {
    return this.#size;
  }

  /** Adds an item and returns its number. */
  push(item: T): number {
    this.#items.push(item);
    this.#size++;
    return this.next - 1;
  }

  /** Leaves out numbers, so that `next` is the number of the next item. */
  skipTo(next: number): void {
    if (this.#size === 0) this.first = next;
    else while (this.next < next) this.#items.push(undefined);
  }

  /** Item of that number; undefined if it was removed or not yet added. */
  get(number: number): T | undefined {
    return number < this.first
      ? undefined
      : this.#items[this.#head + number - this.first];
  }

  /** Removes and returns the item of that number; undefined if it was removed. */
  take(number: number): T | undefined {
    const item = this.get(number);
    if (item === undefined) return undefined;
    const items = this.#items;
    items[this.#head + number - this.first] = undefined;
    this.#size--;
    if (number === this.first) {
      while (this.#head < items.length && items[this.#head] === undefined) {
        this.#head++;
        this.first++;
      }
      if (this.#head === items.length) items.length = this.#head = 0;
      else if (this.#head >= 1024 && this.#head * 2 > items.length) {
        items.splice(0, this.#head);
        this.#head = 0;
      }
    }
    return item;
  }

  /** Items from a number on, in order, of at most `count`. */
  list(from: number = this.first, count: number = Infinity): T[] {
    const items: T[] = [];
    const start = this.#head + Math.max(0, from - this.first);
    for (let i = start; i < this.#items.length && items.length < count; i++) {
      const item = this.#items[i];
      if (item !== undefined) items.push(item);
    }
    return items;
  }
}
