/**
 * The log as the page draws it: a row of numbered cells, each with a mark for every
 * replica that has it in its state.
 *
 * @module
 */

import { create, hiddenText, setText } from "./elements.ts";
import {
  HASH_ENTRIES,
  type LogCell,
  type Mark,
  type Name,
  type ReplicaView,
  type World,
} from "./world.ts";

/** Largest number of cells that are drawn. */
const CELLS_MAX = 120;

/** Distance from the end within which the row follows new cells, in pixels. */
const FOLLOW_PX = 160;

/** Elements of one cell. */
interface Drawn {
  readonly element: HTMLLIElement;
  readonly flag: HTMLSpanElement;
  readonly marks: ReadonlyMap<Name, HTMLElement>;
  readonly words: HTMLSpanElement;
}

function has(mark: Mark | undefined): string {
  switch (mark) {
    case "applied":
      return "applied by";
    case "passed":
      return "passed over by";
    case "snapshot":
      return "in the snapshot of";
    case undefined:
      return "not reached by";
  }
}

function wordsOf(cell: LogCell, replicas: readonly ReplicaView[]): string {
  const { index, text, from, repeats } = cell;
  const groups = new Map<string, Name[]>();
  for (const { name, marks } of replicas) {
    const how = has(marks.get(index));
    groups.set(how, [...groups.get(how) ?? [], name]);
  }
  return [
    `${index}: ${text}${from === undefined ? "" : ` from ${from}`}`,
    ...(repeats === undefined ? [] : [`the same command as ${repeats}`]),
    ...[...groups].map(([how, names]) => `${how} ${names.join(" and ")}`),
  ].join(", ");
}

/** Explanation of an entry, for a pointer that rests on it. */
function explanationOf(
  { index, kind, text, from, repeats, inSession }: LogCell,
): string {
  const sentences = [
    kind === "session"
      ? `${from} has opened a session: its commands are numbered from here on.`
      : kind === "control"
      ? "The log was opened for writing: a random number, which identifies this history."
      : `${text}, proposed at ${from}, ${
        inSession ? "in its session" : "outside of any session"
      }.`,
  ];
  if (repeats !== undefined) {
    sentences.push(`The same command as #${repeats}.`);
  }
  if (index % HASH_ENTRIES === 0) {
    sentences.push("The replicas compare the hashes of their states here.");
  }
  return sentences.join(" ");
}

/** True if every replica passes over a cell, because its session has the command already. */
function isAgain({ repeats, inSession }: LogCell): boolean {
  return repeats !== undefined && inSession;
}

function draw(cell: LogCell, names: readonly Name[]): Drawn {
  const { index, kind, text, from, repeats, inSession } = cell;
  const flag = create("span", "flag");
  const number = create("span", "number", `${index}`, flag);
  if (repeats !== undefined) flag.append(`= ${repeats}`);
  const marks = new Map(
    names.map((name) => [name, create("i", "mark", name)]),
  );
  const shown = create(
    "div",
    "",
    number,
    create("div", "text", text),
    create("div", "marks", ...marks.values()),
  );
  shown.setAttribute("aria-hidden", "true");
  const words = hiddenText();
  const classes = ["cell", "fresh"];
  if (from !== undefined) classes.push(`from-${from.toLowerCase()}`);
  if (kind !== "command") classes.push("control");
  if (repeats !== undefined && !inSession) classes.push("twice");
  const element = create("li", classes.join(" "), shown, words);
  element.title = explanationOf(cell);
  return { element, flag, marks, words };
}

/** The row of cells. */
export class Tape {
  readonly #list: HTMLElement;
  readonly #drawn = new Map<number, Drawn>();
  readonly #dropped = create("li", "cell control dropped");
  #world: World | undefined;

  /** Creates the row in a list. */
  constructor(list: HTMLElement) {
    this.#list = list;
  }

  /** Draws the log of a world. */
  update(world: World): void {
    if (world !== this.#world) this.#reset(world);
    const list = this.#list;
    const { first, cells, replicas, snapshots, skipped } = world;
    const isFollowing =
      list.scrollLeft + list.clientWidth > list.scrollWidth - FOLLOW_PX;
    const from = Math.max(first, cells.length - CELLS_MAX + 1);
    for (const [index, { element }] of this.#drawn) {
      if (index >= from) break;
      element.remove();
      this.#drawn.delete(index);
    }
    this.#drop(first);
    let isGrown = false;
    for (const cell of cells.slice(from - 1)) {
      let drawn = this.#drawn.get(cell.index);
      if (drawn === undefined) {
        drawn = draw(cell, replicas.map(({ name }) => name));
        this.#drawn.set(cell.index, drawn);
        list.append(drawn.element);
        isGrown = true;
      }
      for (const { name, marks } of replicas) {
        const mark = marks.get(cell.index);
        drawn.marks.get(name)!.className = `mark ${name.toLowerCase()} ${
          mark ?? ""
        }`;
      }
      const isCause = replicas.some(({ differsAt }) =>
        differsAt === cell.index
      );
      const isSkipped = skipped.has(cell.index);
      drawn.element.classList.toggle("cause", isCause);
      drawn.element.classList.toggle("again", isSkipped || isAgain(cell));
      if (cell.repeats === undefined) {
        const hasSnapshot = snapshots.includes(cell.index);
        setText(
          drawn.flag,
          isSkipped
            ? "skipped"
            : isCause
            ? "cause"
            : hasSnapshot
            ? "snapshot"
            : "",
        );
      }
      setText(drawn.words, wordsOf(cell, replicas));
    }
    if (isGrown && isFollowing) list.scrollLeft = list.scrollWidth;
  }

  #reset(world: World): void {
    this.#world = world;
    this.#drawn.clear();
    this.#list.replaceChildren();
  }

  /** Shows how much of the log was dropped. */
  #drop(first: number): void {
    if (first <= 1) return this.#dropped.remove();
    if (this.#list.firstChild !== this.#dropped) {
      this.#list.prepend(this.#dropped);
    }
    const text = `1–${first - 1} dropped`;
    if (this.#dropped.textContent === text) return;
    this.#dropped.replaceChildren(
      create("span", "number", `1–${first - 1}`),
      create("div", "text", " dropped"),
    );
  }
}
