/**
 * State of a key-value machine in memory: a copy-on-write B+tree with a hash
 * index over its leaves.
 *
 * Every node has an owner. A tree changes its own nodes in place and copies the
 * others on the path to a change. So a version of the state is one reference to
 * a root, created by giving up ownership, and nodes common to the tree and its
 * versions are shared. The index covers only the tree's present state: it finds
 * a key without comparing keys, so that overwriting a row in an owned leaf
 * never descends the tree.
 *
 * The hash of a small value is taken when the state hash is asked for, so that
 * a row overwritten often is hashed once. The number of leaves with such rows is
 * bounded, and with it the time that the state hash takes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { KV_UNHASHED_BYTES_MAX, KV_UNHASHED_LEAVES_MAX } from "../limits.ts";
import { HashIndex, HINT_BITS, HINT_MASK } from "./hash_index.ts";
import { hash64, hashKey, hashValue, lanes } from "./hash.ts";
import { HIGH, Leaf, LEAF_BYTES, LEAF_ROWS, LOW, WIDTH } from "./leaf.ts";
import {
  bytesOf,
  compareBytes,
  copyBytes,
  copyOf,
  equalBytes,
  headOf,
  viewOf,
} from "./view.ts";

/** Maximum number of children of an inner node. */
const FANOUT = 64;

/**
 * Inner node: every key below `children[i]` is less than `separators[i]`, and
 * every key after it is not. Like a leaf, it keeps the head of each separator,
 * four bytes after the prefix that all of them share, so that whole separators
 * are compared only if heads are equal.
 */
class Inner {
  owner: object;
  readonly children: Node[];
  readonly separators: DataView[];
  readonly #heads = new Int32Array(FANOUT);
  /** Length of the prefix that all separators share; -1 if the heads are outdated. */
  #common = -1;

  constructor(owner: object, children: Node[], separators: DataView[]) {
    this.owner = owner;
    this.children = children;
    this.separators = separators;
  }

  /** Returns the index of the child that covers a key. */
  childOf(view: DataView, start: number, end: number): number {
    if (this.#common < 0) this.#takeHeads();
    const { separators } = this;
    const heads = this.#heads;
    const common = this.#common;
    if (common > 0) {
      const stop = Math.min(end, start + common);
      const order = compareBytes(separators[0]!, 0, common, view, start, stop);
      if (order !== 0) return order > 0 ? 0 : separators.length;
    }
    const head = headOf(view, start + common, end);
    let low = 0;
    let high = separators.length;
    while (low < high) {
      const i = low + high >> 1;
      const at = heads[i]!;
      if (
        at < head || at === head && !isAbove(separators[i]!, view, start, end)
      ) low = i + 1;
      else high = i;
    }
    return low;
  }

  /** Inserts a child after the one at `i`, and the separator between them. */
  insert(i: number, separator: DataView, child: Node): void {
    this.children.splice(i + 1, 0, child);
    this.separators.splice(i, 0, separator);
    this.#common = -1;
  }

  /** Removes the child after the one at `i`, and the separator between them. */
  remove(i: number): void {
    this.children.splice(i + 1, 1);
    this.separators.splice(i, 1);
    this.#common = -1;
  }

  /** Splits off the children after the one at `i`, without the separator between. */
  split(owner: object, i: number): [separator: DataView, right: Inner] {
    const right = new Inner(
      owner,
      this.children.splice(i + 1),
      this.separators.splice(i + 1),
    );
    this.#common = -1;
    return [this.separators.pop()!, right];
  }

  /** Appends the children of another node, after a separator. */
  append(separator: DataView, { children, separators }: Inner): void {
    this.children.push(...children);
    this.separators.push(separator, ...separators);
    this.#common = -1;
  }

  /** Makes a copy with another owner. */
  copy(owner: object): Inner {
    const copy = new Inner(
      owner,
      this.children.slice(),
      this.separators.slice(),
    );
    copy.#common = this.#common;
    copy.#heads.set(this.#heads);
    return copy;
  }

  #takeHeads(): void {
    const { separators } = this;
    const first = separators[0];
    let common = 0;
    if (first) {
      const last = separators.at(-1)!;
      const size = Math.min(first.byteLength, last.byteLength);
      while (
        common < size && first.getUint8(common) === last.getUint8(common)
      ) common++;
    }
    this.#common = common;
    for (let i = 0; i < separators.length; i++) {
      const key = separators[i]!;
      this.#heads[i] = headOf(key, common, key.byteLength);
    }
  }
}

/** True if a separator is above a key. */
function isAbove(
  separator: DataView,
  view: DataView,
  start: number,
  end: number,
): boolean {
  return compareBytes(separator, 0, separator.byteLength, view, start, end) > 0;
}

type Node = Inner | Leaf;

/** Immutable version of a state. */
export interface Version {
  /** Root of the tree. */
  readonly root: Node;
  /** Number of rows. */
  readonly count: number;
  /** The state hash. */
  readonly hash: bigint;
}

/** Consecutive rows of one leaf: from `start` to before `end`. */
export interface Span {
  /** Leaf, which the reader must not change. */
  readonly leaf: Leaf;
  /** First row of the span. */
  readonly start: number;
  /** Row after the last of the span. */
  readonly end: number;
}

/**
 * Iterates over the rows below `node` whose keys are in [from, to), leaf by
 * leaf; in descending order of leaves if `reverse`.
 */
export function* spans(
  node: Node,
  from?: DataView,
  to?: DataView,
  reverse?: boolean,
): Generator<Span> {
  if (node instanceof Leaf) {
    const start = from ? node.lowerBound(from, 0, from.byteLength) : 0;
    const end = to ? node.lowerBound(to, 0, to.byteLength) : node.rows;
    if (start < end) yield { leaf: node, start, end };
    return;
  }
  const first = from ? node.childOf(from, 0, from.byteLength) : 0;
  const last = to
    ? node.childOf(to, 0, to.byteLength)
    : node.children.length - 1;
  for (let i = first; i <= last; i++) {
    const child = node.children[reverse ? first + last - i : i]!;
    yield* spans(child, from, to, reverse);
  }
}

/** Returns the shortest key above the last row of `left` and not above the first of `right`. */
export function separate(left: Leaf, right: Leaf): DataView {
  const a = left.view;
  const b = right.view;
  const start = right.keyAt(0);
  let at = start;
  let i = left.keyAt(left.rows - 1);
  const end = left.valueAt(left.rows - 1);
  while (i < end && a.getInt8(i) === b.getInt8(at)) i++, at++;
  return viewOf(copyOf(b, start, at + 1));
}

/** Returns the hash of the key of a row for the index. */
function hashOf(leaf: Leaf, row: number): number {
  return hashKey(leaf.view, leaf.keyAt(row), leaf.valueAt(row));
}

/** Ordered rows with their number and hash. */
export class Tree {
  #owner: object = {};
  #root: Node;
  #count = 0;
  #low = 0;
  #high = 0;
  /** Undefined in a clone, which finds keys by descending the tree. */
  #index: HashIndex | undefined;
  /** Present leaves by id; id 0 is unused. */
  readonly #leaves: Leaf[];
  readonly #freeIds: number[] = [];
  /** Own leaves with rows whose hash is postponed; those rows have hash 0. */
  readonly #unhashed: Leaf[] = [];

  // Result of finding a row: its leaf, and the path to it.
  #leaf: Leaf;
  readonly #path: Inner[] = [];
  readonly #positions: number[] = [];

  /** Creates an empty tree, or one that shares its nodes with another. */
  constructor(from?: Tree) {
    this.#leaf = this.#root = new Leaf(
      this.#owner,
      1,
      viewOf(new Uint8Array()),
    );
    this.#leaves = [this.#leaf, this.#leaf];
    if (from) {
      from.#settle();
      this.#root = from.#root;
      this.#count = from.#count;
      this.#low = from.#low;
      this.#high = from.#high;
      from.#owner = {};
    } else this.#index = new HashIndex();
  }

  /** Number of rows. */
  get count(): number {
    return this.#count;
  }

  /** The state hash. */
  get hash(): bigint {
    this.#settle();
    return hash64(this.#low, this.#high);
  }

  /** Present state, readable until the next change. */
  get present(): Version {
    return { root: this.#root, count: this.#count, hash: this.hash };
  }

  /** Iterates over rows of the present state like {@linkcode spans}. */
  spans(from?: DataView, to?: DataView, reverse?: boolean): Iterable<Span> {
    return spans(this.#root, from, to, reverse);
  }

  /** Captures the present state as a version. */
  freeze(): Version {
    const { present } = this;
    this.#owner = {};
    return present;
  }

  /** Returns the value of a key, readable until the next change. */
  get(view: DataView, start: number, end: number): Uint8Array | undefined {
    const row = this.#find(hashKey(view, start, end), view, start, end);
    const leaf = this.#leaf;
    return row < 0 ? undefined : bytesOf(
      leaf.view,
      leaf.keyAt(row) + end - start,
      leaf.offset(row + 1),
    );
  }

  /** Returns a copy of the value of a key. */
  copy(view: DataView, start: number, end: number): Uint8Array | undefined {
    const row = this.#find(hashKey(view, start, end), view, start, end);
    const leaf = this.#leaf;
    return row < 0 ? undefined : copyOf(
      leaf.view,
      leaf.keyAt(row) + end - start,
      leaf.offset(row + 1),
    );
  }

  /** Sets the value of a key; false if it has it already. */
  put(
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): boolean {
    const hash = hashKey(view, keyStart, keyEnd);
    let row = this.#find(hash, view, keyStart, keyEnd);
    const insert = row < 0;
    let leaf = this.#leaf;
    let fits = false;
    if (!insert) {
      const at = leaf.keyAt(row) + keyEnd - keyStart;
      const grow = valueEnd - valueStart - (leaf.offset(row + 1) - at);
      if (
        grow === 0 && equalBytes(view, valueStart, valueEnd, leaf.view, at)
      ) return false;
      if (leaf.owner === this.#owner) {
        if (grow === 0) {
          this.#hash(leaf, row, view, valueStart, valueEnd);
          copyBytes(view, valueStart, valueEnd, leaf.view, at);
          return true;
        }
        fits = leaf.used + grow < LEAF_BYTES;
      }
    }
    if (!fits) {
      leaf = this.#own(view, keyStart, keyEnd);
      row = leaf.lowerBound(view, keyStart, keyEnd);
    }
    leaf.write(row, insert, view, keyStart, keyEnd, valueStart, valueEnd);
    this.#hash(leaf, row, view, valueStart, valueEnd);
    if (insert) {
      this.#count++;
      this.#index?.add(hash, leaf.id, row);
    }
    if (!fits) this.#split(leaf, row);
    return true;
  }

  /** Removes a key; false if it is absent. */
  delete(view: DataView, start: number, end: number): boolean {
    const hash = hashKey(view, start, end);
    if (this.#find(hash, view, start, end) < 0) return false;
    const leaf = this.#own(view, start, end);
    const row = leaf.lowerBound(view, start, end);
    this.#low = this.#low - leaf.meta[row * WIDTH + LOW]! | 0;
    this.#high = this.#high - leaf.meta[row * WIDTH + HIGH]! | 0;
    this.#count--;
    this.#index?.move(hash, leaf.id, 0);
    leaf.remove(row);
    this.#merge();
    return true;
  }

  /** Adds a leaf whose rows are above all those added before; call {@linkcode plant} at the end. */
  adopt(leaf: Leaf): void {
    leaf.owner = this.#owner;
    // The first leaf replaces the empty leaf of the new tree.
    leaf.id = this.#count === 0 ? 1 : this.#leaves.length;
    this.#leaves[leaf.id] = leaf;
    this.#count += leaf.rows;
    for (let row = 0; row < leaf.rows; row++) {
      this.#low = this.#low + leaf.meta[row * WIDTH + LOW]! | 0;
      this.#high = this.#high + leaf.meta[row * WIDTH + HIGH]! | 0;
      this.#index?.add(hashOf(leaf, row), leaf.id, row);
    }
  }

  /** Builds the inner nodes over the added leaves, given the separators between them. */
  plant(separators: DataView[]): void {
    let nodes: Node[] = this.#leaves.slice(1);
    let between = separators;
    while (nodes.length > 1) {
      const parents: Node[] = [];
      const left: DataView[] = [];
      for (let i = 0; i < nodes.length; i += FANOUT) {
        const children = nodes.slice(i, i + FANOUT);
        const last = i + children.length - 1;
        parents.push(
          new Inner(this.#owner, children, between.slice(i, last)),
        );
        if (last < between.length) left.push(between[last]!);
      }
      nodes = parents;
      between = left;
    }
    this.#root = nodes[0]!;
  }

  /** Updates the hash of a row for its new value; the lanes have that of its key. */
  #hash(
    leaf: Leaf,
    row: number,
    view: DataView,
    valueStart: number,
    valueEnd: number,
  ): void {
    const { meta } = leaf;
    const i = row * WIDTH;
    this.#low = this.#low - meta[i + LOW]! | 0;
    this.#high = this.#high - meta[i + HIGH]! | 0;
    const isSmall = valueEnd - valueStart <= KV_UNHASHED_BYTES_MAX;
    if (isSmall && (leaf.isUnhashed || this.#postpone(leaf))) {
      meta[i + LOW] = meta[i + HIGH] = 0;
      return;
    }
    hashValue(view, valueStart, valueEnd);
    this.#low = this.#low + (meta[i + LOW] = lanes[0]!) | 0;
    this.#high = this.#high + (meta[i + HIGH] = lanes[1]!) | 0;
  }

  /** Postpones the hashes of changed rows of a leaf until the state hash is asked for; false if those of enough leaves are. */
  #postpone(leaf: Leaf): boolean {
    if (this.#unhashed.length >= KV_UNHASHED_LEAVES_MAX) return false;
    leaf.isUnhashed = true;
    this.#unhashed.push(leaf);
    return true;
  }

  /** Takes the hashes that were postponed. */
  #settle(): void {
    const leaves = this.#unhashed;
    for (let i = 0; i < leaves.length; i++) this.#settleLeaf(leaves[i]!);
    leaves.length = 0;
  }

  #settleLeaf(leaf: Leaf): void {
    if (!leaf.isUnhashed) return;
    leaf.isUnhashed = false;
    const { meta, rows, view } = leaf;
    for (let row = 0; row < rows; row++) {
      const i = row * WIDTH;
      // A row whose hash is 0 in truth adds nothing either.
      if ((meta[i + LOW]! | meta[i + HIGH]!) !== 0) continue;
      const valueStart = leaf.valueAt(row);
      hashKey(view, leaf.keyAt(row), valueStart);
      hashValue(view, valueStart, leaf.offset(row + 1));
      this.#low = this.#low + (meta[i + LOW] = lanes[0]!) | 0;
      this.#high = this.#high + (meta[i + HIGH] = lanes[1]!) | 0;
    }
  }

  /** Finds the row of a key in `#leaf`, or -1. */
  #find(hash: number, view: DataView, start: number, end: number): number {
    const index = this.#index;
    if (!index) {
      let node = this.#root;
      while (node instanceof Inner) {
        node = node.children[node.childOf(view, start, end)]!;
      }
      this.#leaf = node;
      return node.find(view, start, end, 0);
    }
    index.locate(hash);
    const { slots, base, mask } = index;
    let place: number;
    for (
      let at = hash << 1 & mask;
      (place = slots[base + at + 1]!) !== 0;
      at = at + 2 & mask
    ) {
      if (slots[base + at] !== hash) continue;
      const leaf = this.#leaves[place >> HINT_BITS]!;
      const hint = place & HINT_MASK;
      const row = leaf.find(view, start, end, hint);
      if (row >= 0) {
        if (row !== hint) slots[base + at + 1] = place - hint + row;
        this.#leaf = leaf;
        return row;
      }
    }
    return -1;
  }

  /** Descends to the leaf of a key and makes every node on the path the tree's own. */
  #own(view: DataView, start: number, end: number): Leaf {
    this.#path.length = this.#positions.length = 0;
    let node = this.#root = this.#copy(this.#root);
    while (node instanceof Inner) {
      const position = node.childOf(view, start, end);
      this.#path.push(node);
      this.#positions.push(position);
      node = node.children[position] = this.#copy(node.children[position]!);
    }
    return node;
  }

  #copy<N extends Node>(node: N): N;
  #copy(node: Node): Node {
    if (node.owner === this.#owner) return node;
    if (node instanceof Inner) return node.copy(this.#owner);
    const view = viewOf(new Uint8Array(node.used));
    const leaf = new Leaf(this.#owner, node.id, view);
    leaf.append(node, 0, node.rows);
    if (this.#index) this.#leaves[leaf.id] = leaf;
    return leaf;
  }

  /** Moves rows to another leaf in the hash index. */
  #reindex(leaf: Leaf, start: number, end: number, to: number): void {
    if (!this.#index) return;
    for (let row = start; row < end; row++) {
      this.#index.move(hashOf(leaf, row), leaf.id, to);
    }
  }

  /** Splits the leaf at the end of the path if it is too large, and its ancestors in turn. */
  #split(leaf: Leaf, row: number): void {
    const { rows, used } = leaf;
    if (rows < LEAF_ROWS && (used < LEAF_BYTES || rows < 2)) return;
    this.#settleLeaf(leaf);
    // Ascending inserts leave full leaves behind.
    let cut = rows - 1;
    if (row < cut) {
      for (cut = 1; cut < rows - 1; cut++) {
        if (leaf.offset(cut) * 2 >= used) break;
      }
    }
    const id = this.#freeIds.pop() ?? this.#leaves.length;
    const size = used - leaf.offset(cut);
    // Both halves of a leaf in the middle are going to grow.
    const isMiddle = cut < rows - 1;
    const spare = isMiddle ? Math.min(size, LEAF_BYTES - size) >> 1 : 0;
    const view = viewOf(new Uint8Array(size + Math.max(0, spare)));
    const half = new Leaf(this.#owner, id, view);
    if (this.#index) this.#leaves[id] = half;
    half.append(leaf, cut, rows);
    this.#reindex(leaf, cut, rows, id);
    leaf.cut(cut);
    if (!isMiddle) leaf.trim();
    let left: Node = leaf;
    let right: Node = half;
    let separator = separate(leaf, half);
    for (let depth = this.#path.length - 1; depth >= 0; depth--) {
      const parent = this.#path[depth]!;
      const position = this.#positions[depth]!;
      parent.insert(position, separator, right);
      if (parent.children.length <= FANOUT) return;
      left = parent;
      [separator, right] = parent.split(
        this.#owner,
        position === FANOUT - 1 ? position : FANOUT >> 1,
      );
    }
    this.#root = new Inner(this.#owner, [left, right], [separator]);
  }

  /** Merges the leaf at the end of the path with a neighbour if it is small, and its ancestors in turn. */
  #merge(): void {
    for (let depth = this.#path.length - 1; depth >= 0; depth--) {
      const parent = this.#path[depth]!;
      const { children, separators } = parent;
      const position = this.#positions[depth]!;
      const node = children[position]!;
      const small = node instanceof Leaf
        ? node.rows <= LEAF_ROWS / 4 && node.used <= LEAF_BYTES / 4
        : node.children.length <= FANOUT / 4;
      if (!small) return;
      const i = Math.max(0, position - 1);
      const right = children[i + 1];
      if (!right || !this.#join(children, i, right, separators[i]!)) continue;
      parent.remove(i);
    }
    while (this.#root instanceof Inner && this.#root.children.length === 1) {
      this.#root = this.#root.children[0]!;
    }
  }

  /** Appends `right` to the node before it, if there is room. */
  #join(
    children: Node[],
    i: number,
    right: Node,
    separator: DataView,
  ): boolean {
    const left = children[i]!;
    if (left instanceof Leaf && right instanceof Leaf) {
      const full = left.rows + right.rows >= LEAF_ROWS ||
        left.used + right.used > LEAF_BYTES;
      if (full && left.rows > 0 && right.rows > 0) return false;
      this.#settleLeaf(right);
      const leaf = children[i] = this.#copy(left);
      leaf.append(right, 0, right.rows);
      this.#reindex(right, 0, right.rows, leaf.id);
      if (this.#index) {
        this.#leaves[right.id] = this.#leaves[0]!;
        this.#freeIds.push(right.id);
      }
    } else if (left instanceof Inner && right instanceof Inner) {
      if (left.children.length + right.children.length > FANOUT) return false;
      const inner = children[i] = this.#copy(left);
      inner.append(separator, right);
    }
    return true;
  }
}
