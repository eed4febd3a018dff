/**
 * Panels of an inspected replica: its state, log, outbox, sessions and snapshots.
 *
 * Needs a page once it is used.
 * This module is browser compatible.
 *
 * @module
 */

import { INSPECTOR_ROWS_MAX } from "../limits.ts";
import type { LoggedSession, Submission } from "../nodehost/mod.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import { Chart } from "./chart.ts";
import type { Comparison, DeviceModel } from "./device_model.ts";
import { h, KeyedList, setText } from "./dom.ts";
import { type Card, cardsOf, type Fact } from "./facts.ts";
import type { ShownEntry } from "./log_tail.ts";
import { countText, durationText, sizeText, valueText } from "./show.ts";

/** Part of the inspector under one tab. */
export interface Panel {
  /** Content of the panel. */
  readonly element: HTMLElement;
  /** Shows the present state; called only while the panel is visible. */
  show(): void;
  /** Ends the panel. */
  close?(): void;
}

/** Cards of facts, whose texts change in place. */
export class Cards {
  /** Element with the cards. */
  readonly element: HTMLElement = h("div", { className: "cards" });
  #shape = "";
  #values: HTMLElement[] = [];

  /** Shows these cards. */
  show(cards: readonly Card[]): void {
    const facts = cards.flatMap(({ facts }) => facts);
    const shape = JSON.stringify(
      cards.map(({ title, facts }) => [title, facts.map(({ label }) => label)]),
    );
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#values = facts.map(() => h("dd"));
      let at = 0;
      this.element.replaceChildren(
        ...cards.map(({ title, facts }) =>
          h(
            "section",
            { className: "card" },
            h("h3", {}, title),
            h(
              "dl",
              {},
              ...facts.map(({ label }) =>
                h("div", {}, h("dt", {}, label), this.#values[at++]!)
              ),
            ),
          )
        ),
      );
    }
    facts.forEach(({ value, tone }: Fact, i) => {
      const element = this.#values[i]!;
      setText(element, value);
      const className = tone ?? "";
      if (element.className !== className) element.className = className;
    });
  }
}

/** Number of entries a second as text. */
export function rateText(rate: number): string {
  return rate >= 10 || rate === 0
    ? Math.round(rate).toLocaleString("en")
    : rate.toFixed(1);
}

/** State of a replica at a glance. */
export class OverviewPanel implements Panel {
  readonly element: HTMLElement;
  readonly #model: DeviceModel;
  readonly #isOnline: () => boolean;
  readonly #cards = new Cards();
  readonly #rate = new Chart("Applied entries a second", [
    { name: "now", colour: "--one", format: rateText },
  ]);
  readonly #latency = new Chart("From edit to result", [
    { name: "median", colour: "--three", format: durationText },
    { name: "95 % within", colour: "--two", format: durationText },
  ]);
  /** Last comparison of hashes. */
  comparison: Comparison | undefined;

  /** Creates the panel of a model. */
  constructor(model: DeviceModel, isOnline: () => boolean) {
    this.#model = model;
    this.#isOnline = isOnline;
    this.element = h(
      "div",
      { className: "panel" },
      h(
        "div",
        { className: "charts" },
        this.#rate.element,
        this.#latency.element,
      ),
      this.#cards.element,
    );
  }

  show(): void {
    const { report, samples } = this.#model;
    this.#rate.show(samples.map(({ at, rate }) => [at, rate]));
    this.#latency.show(
      samples.map(({ at, median, high }) => [at, median, high]),
    );
    if (report === undefined) return;
    this.#cards.show(cardsOf(report, this.comparison, this.#isOnline()));
  }

  close(): void {
    this.#rate.close();
    this.#latency.close();
  }
}

/** Parts of a decoded command that every decoder may give. */
interface KnownCall {
  readonly name?: unknown;
  readonly by?: unknown;
  readonly at?: unknown;
  readonly args?: unknown;
  /** Value that the command has returned. */
  readonly value?: unknown;
}

/** Entry in words. */
export interface EntryText {
  /** Name of the command, or kind of the record. */
  readonly what: string;
  /** Arguments, or the text of the record. */
  readonly more: string;
  /** Author, time and session. */
  readonly side: string;
}

/** Describes a command, decoded or as bytes. */
export function commandText(
  call: unknown,
  cmd: Uint8Array,
): EntryText {
  if (typeof call === "string") return { what: call, more: "", side: "" };
  if (call === undefined || call === null) {
    return { what: "command", more: valueText(cmd), side: "" };
  }
  const { name, by, at, args } = call as KnownCall;
  if (typeof name !== "string") {
    return { what: "command", more: valueText(call), side: "" };
  }
  const side = [
    typeof by === "string" ? `by ${by}` : "",
    typeof at === "number" && at > 0 ? new Date(at).toLocaleTimeString() : "",
  ];
  return {
    what: name === "" ? "activation" : name,
    more: args === undefined ? "" : valueText(args),
    side: side.filter((part) => part !== "").join(" · "),
  };
}

/** Texts of entries that were described before: a filter asks for all of them. */
const described = /* @__PURE__ */ new WeakMap<ShownEntry, EntryText>();

/** Describes an entry of the log. */
export function entryText(entry: ShownEntry): EntryText {
  const known = described.get(entry) ?? describeEntry(entry);
  described.set(entry, known);
  return known;
}

/** Outcome of an entry in words; empty if it is not known, or says nothing. */
function outcomeText({ outcome, call }: ShownEntry): string {
  if (outcome === undefined) return "";
  const { reason, result } = outcome;
  if (reason !== undefined) return `refused: ${reason}`;
  if (typeof call === "object" && call !== null && "value" in call) {
    const { value } = call as KnownCall;
    return value === undefined ? "" : valueText(value);
  }
  const { value = 0n, data } = result ?? {};
  if (data !== undefined) return `${value}, ${valueText(data)}`;
  return value === 0n ? "" : `${value}`;
}

function describeEntry(entry: ShownEntry): EntryText {
  const { kind, cmd, call, session, series, text = "" } = entry;
  const of = session === undefined
    ? ""
    : series === undefined
    ? `session #${session}`
    : `session #${session}, no. ${series}`;
  if (cmd === undefined) return { what: kind, more: text, side: of };
  const command = commandText(call, cmd);
  const outcome = outcomeText(entry);
  return {
    ...command,
    more: outcome === "" ? command.more : `${command.more} → ${outcome}`,
    side: [command.side, of].filter((part) => part !== "").join(" · "),
  };
}

/** True if an entry has every word of a filter, in any part of its text. */
export function matchesFilter(
  entry: ShownEntry,
  filter: string,
): boolean {
  const words = filter.toLowerCase().split(/\s+/).filter((word) => word !== "");
  if (words.length === 0) return true;
  const { what, more, side } = entryText(entry);
  const text = `#${entry.index} ${entry.kind} ${what} ${more} ${side}`
    .toLowerCase();
  return words.every((word) => text.includes(word));
}

/** Newest entries of the log, with a filter. */
export class LogPanel implements Panel {
  readonly element: HTMLElement;
  readonly #model: DeviceModel;
  readonly #list: KeyedList<ShownEntry>;
  readonly #filter: HTMLInputElement;
  readonly #commands: HTMLInputElement;
  readonly #hint = h("p", { className: "hint" });

  /** Creates the panel; `travel` shows the state as of an entry. */
  constructor(model: DeviceModel, travel: (index: number) => void) {
    this.#model = model;
    this.#filter = h("input", {
      type: "search",
      placeholder: "Filter: a name, an author, a text, #14",
      ariaLabel: "Filter the entries",
      oninput: () => this.show(),
    });
    this.#commands = h("input", {
      type: "checkbox",
      onchange: () => this.show(),
    });
    const rows = h("ol", {
      className: "rows",
      ariaLabel: "Entries, the newest first",
    });
    this.#list = new KeyedList(
      rows,
      ({ index, outcome }) => `${index} ${outcome !== undefined}`,
      (entry) => {
        const { what, more, side } = entryText(entry);
        return h(
          "li",
          entry.outcome?.reason === undefined ? {} : { className: "bad" },
          h(
            "span",
            {},
            h("button", {
              type: "button",
              title: `Show the state as of entry ${entry.index}`,
              ariaLabel: `Show the state as of entry ${entry.index}`,
              onclick: () => travel(entry.index),
            }, `#${entry.index}`),
          ),
          h("span", { className: "what", dir: "auto" }, what),
          h("span", { className: "more", dir: "auto" }, more),
          h("span", { className: "side" }, side),
        );
      },
    );
    this.element = h(
      "div",
      { className: "panel" },
      h(
        "div",
        { className: "bar" },
        this.#filter,
        h("label", {}, this.#commands, "Commands only"),
      ),
      this.#hint,
      rows,
    );
  }

  show(): void {
    const { entries, logProblem } = this.#model;
    const found = entries.filter((entry) =>
      (!this.#commands.checked || entry.kind === "command") &&
      matchesFilter(entry, this.#filter.value)
    );
    const shown = found.slice(-INSPECTOR_ROWS_MAX).reverse();
    setText(
      this.#hint,
      logProblem !== undefined
        ? `The log cannot be read now: ${logProblem}`
        : entries.length === 0
        ? "No entries yet."
        : `${
          found.length < entries.length
            ? `${found.length.toLocaleString("en")} of the `
            : ""
        }${
          countText(entries.length, "entry", "entries")
        } read here, the newest first. Its number shows the state as of an entry.`,
    );
    this.#list.show(shown);
  }
}

/** Panel with one list of things. */
class ListPanel<T> implements Panel {
  readonly element: HTMLElement;
  readonly #items: () => readonly T[];
  readonly #hint = h("p", { className: "hint" });
  readonly #describe: (count: number) => string;
  readonly #list: KeyedList<T>;

  constructor(options: {
    readonly label: string;
    readonly items: () => readonly T[];
    readonly keyOf: (item: T) => string;
    readonly rowOf: (item: T) => EntryText & { readonly head: string };
    readonly describe: (count: number) => string;
  }) {
    this.#items = options.items;
    this.#describe = options.describe;
    const rows = h("ol", { className: "rows", ariaLabel: options.label });
    this.#list = new KeyedList(rows, options.keyOf, (item) => {
      const { head, what, more, side } = options.rowOf(item);
      return h(
        "li",
        {},
        h("span", { className: "what" }, head),
        h("span", { className: "what", dir: "auto" }, what),
        h("span", { className: "more", dir: "auto" }, more),
        h("span", { className: "side" }, side),
      );
    });
    this.element = h("div", { className: "panel" }, this.#hint, rows);
  }

  show(): void {
    const items = this.#items();
    setText(this.#hint, this.#describe(items.length));
    this.#list.show(items.slice(0, INSPECTOR_ROWS_MAX));
  }
}

/** Submissions that are not applied. */
export function outboxPanel(model: DeviceModel): Panel {
  return new ListPanel<Submission>({
    label: "Submissions that are not applied",
    items: () => model.report?.pending ?? [],
    // The state of a submission changes in place.
    keyOf: ({ id, state, reason = "" }) => `${id} ${state} ${reason}`,
    rowOf: ({ id, state, cmd, reason = "" }) => {
      const { what, more, side } = commandText(model.decode(cmd), cmd);
      return {
        head: `${id}`,
        what,
        more: reason === "" ? more : `${reason} — ${more}`,
        side: [state, side].filter((part) => part !== "").join(" · "),
      };
    },
    describe: () => {
      const { pendingCount = 0 } = model.report ?? {};
      return pendingCount === 0
        ? "Nothing waits to be sent. Edits are listed here from the moment they are made until the server has decided them."
        : `${countText(pendingCount, "submission")}, the oldest first.`;
    },
  });
}

/** Open sessions of the cluster. */
export function sessionsPanel(model: DeviceModel): Panel {
  return new ListPanel<LoggedSession>({
    label: "Open sessions",
    items: () => [...model.report?.sessions ?? []].reverse(),
    keyOf: ({ id, decided, unacknowledged }) =>
      `${id} ${decided} ${unacknowledged}`,
    rowOf: ({ id, owner, decided, unacknowledged }) => ({
      head: `#${id}`,
      what: owner === "" ? "no owner" : owner,
      more: `${countText(decided, "command")} decided`,
      side: unacknowledged === 0
        ? "its client has all results"
        : `${
          countText(unacknowledged, "result")
        } kept until its client has them`,
    }),
    describe: (count) =>
      count === 0
        ? "No session is open."
        : `${
          countText(count, "session")
        }, the last used first: one for each outbox that sends. It has each command applied once.`,
  });
}

/** Snapshots on this device. */
export function snapshotsPanel(model: DeviceModel): Panel {
  return new ListPanel<SnapshotInfo>({
    label: "Snapshots",
    items: () => model.report?.snapshots ?? [],
    keyOf: ({ id }) => id,
    rowOf: ({ index, kind, size, files, nodeID, imported }) => ({
      head: `#${index}`,
      what: kind,
      more: `${sizeText(size)}${
        files === 0 ? "" : `, ${countText(files, "file")}`
      }`,
      side: imported ? "imported" : `of replica ${nodeID}`,
    }),
    describe: (count) =>
      count === 0
        ? "No snapshot is on this device: a start reads the whole log. The button Snapshot takes one."
        : `${countText(count, "snapshot")}, the newest first.`,
  });
}
