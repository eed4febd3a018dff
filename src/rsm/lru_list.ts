/**
 * Intrusive LRU list.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Link of one item in one {@linkcode LruList}. */
export interface LruNode<T> {
  /** Item of the node. */
  readonly item: T;
  newer: LruNode<T> | undefined;
  older: LruNode<T> | undefined;
}

/** Doubly linked list of items, from least to most recently used. */
export class LruList<T> {
  oldest: LruNode<T> | undefined;
  newest: LruNode<T> | undefined;
  /** Number of items. */
  size = 0;

  /** Adds an item as the most recently used one. */
  add(item: T): LruNode<T> {
    const node: LruNode<T> = { item, newer: undefined, older: undefined };
    this.size++;
    this.#link(node);
    return node;
  }

  /** Removes an item. */
  remove(node: LruNode<T>): void {
    this.size--;
    this.#unlink(node);
  }

  /** Moves an item to the most recently used end. */
  touch(node: LruNode<T>): void {
    if (node === this.newest) return;
    this.#unlink(node);
    this.#link(node);
  }

  #link(node: LruNode<T>): void {
    node.older = this.newest;
    node.newer = undefined;
    if (this.newest === undefined) this.oldest = node;
    else this.newest.newer = node;
    this.newest = node;
  }

  #unlink({ newer, older }: LruNode<T>): void {
    if (newer === undefined) this.newest = older;
    else newer.older = older;
    if (older === undefined) this.oldest = newer;
    else older.newer = newer;
  }
}
