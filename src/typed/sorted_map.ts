/**
 * Ordered map: a copy-on-write B+tree. A copy of it costs the same whatever its
 * size; the two share every node that neither has changed since.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Most keys of a leaf, and most children of an inner node. */
const FANOUT = 64;

interface Leaf<K, V> {
  owner: object;
  readonly keys: K[];
  readonly values: V[];
  readonly children?: undefined;
}

/** Inner node: `keys[i]` is the first key below `children[i + 1]`, or was when the two were divided. */
interface Inner<K, V> {
  owner: object;
  readonly keys: K[];
  readonly values?: undefined;
  readonly children: Node<K, V>[];
}

type Node<K, V> = Leaf<K, V> | Inner<K, V>;

/** Order of two keys: negative, 0, or positive. */
export type Compare<K> = (one: K, other: K) => number;

/** Map in the order of its keys. */
export class SortedMap<K, V> {
  readonly #compare: Compare<K> | undefined;
  #owner: object = {};
  #root: Node<K, V>;
  #size = 0;
  /** Leaf and place of the key that was found last; undefined once the leaf is replaced or has other keys. */
  #foundLeaf: Leaf<K, V> | undefined;
  #foundAt = 0;

  /** Creates an empty map, or a copy of another one; without `compare`, keys are in the order of `<`. */
  constructor(compare?: Compare<K>, from?: SortedMap<K, V>) {
    this.#compare = compare;
    if (from === undefined) {
      this.#root = { owner: this.#owner, keys: [], values: [] };
    } else {
      this.#root = from.#root;
      this.#size = from.#size;
      from.#owner = {};
    }
  }

  /** Number of keys. */
  get size(): number {
    return this.#size;
  }

  /** Creates a copy, which changes independently. */
  clone(): SortedMap<K, V> {
    return new SortedMap(this.#compare, this);
  }

  /** Number of keys of a node that are at or below a key (`after`), or below it. */
  #position(keys: readonly K[], key: K, after: boolean): number {
    const compare = this.#compare;
    let low = 0;
    let high = keys.length;
    if (compare === undefined) {
      while (low < high) {
        const middle = low + high >> 1;
        const other = keys[middle]!;
        if (other < key || after && other === key) low = middle + 1;
        else high = middle;
      }
      return low;
    }
    while (low < high) {
      const middle = low + high >> 1;
      const order = compare(keys[middle]!, key);
      if (after ? order <= 0 : order < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #isSame(one: K | undefined, other: K): boolean {
    return one === other ||
      one !== undefined && this.#compare?.(one, other) === 0;
  }

  /** Returns the value of a key. */
  get(key: K): V | undefined {
    const found = this.#foundLeaf;
    if (found !== undefined && found.keys[this.#foundAt] === key) {
      return found.values[this.#foundAt];
    }
    let node = this.#root;
    while (node.children !== undefined) {
      node = node.children[this.#position(node.keys, key, true)]!;
    }
    const at = this.#position(node.keys, key, false);
    if (!this.#isSame(node.keys[at], key)) return undefined;
    this.#foundLeaf = node;
    this.#foundAt = at;
    return node.values[at];
  }

  /** Sets the value of a key; returns the value it had. */
  set(key: K, value: V): V | undefined {
    const found = this.#foundLeaf;
    if (
      found !== undefined && found.owner === this.#owner &&
      found.keys[this.#foundAt] === key
    ) {
      // A handler that overwrites a row has read it, mostly.
      const { values } = found;
      const old = values[this.#foundAt];
      values[this.#foundAt] = value;
      return old;
    }
    const root = this.#root = this.#own(this.#root);
    const old = this.#set(root, key, value);
    if (root.keys.length >= FANOUT) {
      const [separator, right] = this.#split(root);
      this.#root = {
        owner: this.#owner,
        keys: [separator],
        children: [root, right],
      };
    }
    return old;
  }

  #set(node: Node<K, V>, key: K, value: V): V | undefined {
    if (node.children === undefined) {
      const at = this.#position(node.keys, key, false);
      if (this.#isSame(node.keys[at], key)) {
        const old = node.values[at];
        node.values[at] = value;
        this.#foundLeaf = node;
        this.#foundAt = at;
        return old;
      }
      this.#foundLeaf = undefined;
      node.keys.splice(at, 0, key);
      node.values.splice(at, 0, value);
      this.#size++;
      return undefined;
    }
    const at = this.#position(node.keys, key, true);
    const child = node.children[at] = this.#own(node.children[at]!);
    const old = this.#set(child, key, value);
    if (child.keys.length >= FANOUT) {
      const [separator, right] = this.#split(child);
      node.keys.splice(at, 0, separator);
      node.children.splice(at + 1, 0, right);
    }
    return old;
  }

  /** Moves the upper half of a node to a new one; returns the key between them, and the new node. */
  #split(node: Node<K, V>): [K, Node<K, V>] {
    const owner = this.#owner;
    const half = node.keys.length >> 1;
    if (node.children === undefined) {
      const right = {
        owner,
        keys: node.keys.splice(half),
        values: node.values.splice(half),
      };
      return [right.keys[0]!, right];
    }
    const children = node.children.splice(half + 1);
    const keys = node.keys.splice(half + 1);
    return [node.keys.pop()!, { owner, keys, children }];
  }

  /** Removes a key; returns the value it had. */
  delete(key: K): V | undefined {
    // A key that is absent copies nothing.
    if (this.get(key) === undefined) return undefined;
    this.#foundLeaf = undefined;
    let root = this.#root = this.#own(this.#root);
    const old = this.#delete(root, key);
    while (root.children?.length === 1) root = this.#root = root.children[0]!;
    this.#size--;
    return old;
  }

  #delete(node: Node<K, V>, key: K): V {
    if (node.children === undefined) {
      const at = this.#position(node.keys, key, false);
      node.keys.splice(at, 1);
      return node.values.splice(at, 1)[0]!;
    }
    const at = this.#position(node.keys, key, true);
    const child = node.children[at] = this.#own(node.children[at]!);
    const old = this.#delete(child, key);
    if (child.keys.length < FANOUT >> 2) this.#join(node, at);
    return old;
  }

  /** Joins a small child with a neighbour if the two fit into one node. */
  #join(node: Inner<K, V>, at: number): void {
    const first = Math.max(0, at - 1);
    const right = node.children[first + 1];
    if (right === undefined) return;
    const left = node.children[first]!;
    if (left.keys.length + right.keys.length >= FANOUT - 1) return;
    const joined = node.children[first] = this.#own(left);
    if (joined.children === undefined) {
      joined.keys.push(...right.keys);
      joined.values.push(...right.values!);
    } else {
      joined.keys.push(node.keys[first]!, ...right.keys);
      joined.children.push(...right.children!);
    }
    node.keys.splice(first, 1);
    node.children.splice(first + 1, 1);
  }

  #own(node: Node<K, V>): Node<K, V> {
    const owner = this.#owner;
    if (node.owner === owner) return node;
    if (node === this.#foundLeaf) this.#foundLeaf = undefined;
    const keys = node.keys.slice();
    return node.children === undefined
      ? { owner, keys, values: node.values.slice() }
      : { owner, keys, children: node.children.slice() };
  }

  /** Iterates over the map as it is now, whatever is changed during the iteration: keys at or above `from`, in order. */
  entries(from?: K): Generator<[K, V]> {
    // Nodes that an iteration may still read are not changed.
    this.#owner = {};
    return this.#entries(this.#root, from);
  }

  *#entries(node: Node<K, V>, from?: K): Generator<[K, V]> {
    const { keys } = node;
    if (node.children === undefined) {
      const first = from === undefined ? 0 : this.#position(keys, from, false);
      for (let i = first; i < keys.length; i++) {
        yield [keys[i]!, node.values[i]!];
      }
      return;
    }
    const first = from === undefined ? 0 : this.#position(keys, from, true);
    for (let i = first; i < node.children.length; i++) {
      yield* this.#entries(node.children[i]!, i === first ? from : undefined);
    }
  }
}
