/**
 * Time travel: the state as of an entry beside the present one, with the difference.
 *
 * Needs a page once it is used.
 * This module is browser compatible.
 *
 * @module
 */

import { INSPECTOR_ROWS_MAX } from "../limits.ts";
import type { DeviceModel, Travelled } from "./device_model.ts";
import type { Difference } from "./difference.ts";
import { h, setText } from "./dom.ts";
import type { Panel } from "./panels.ts";
import { countText, errorText, hashText, valueText } from "./show.ts";

/** Parts of a state: names and values, each of them a map of rows or one value. */
function partsOf(state: unknown): readonly (readonly [string, unknown])[] {
  if (state instanceof Map) {
    return [...state].map(([name, part]) => [String(name), part]);
  }
  if (typeof state !== "object" || state === null) {
    return [["state", state]];
  }
  return Object.entries(state);
}

/** Rows of a part of a state; undefined for a single value. */
function rowsOf(
  part: unknown,
): readonly (readonly [string, unknown])[] | undefined {
  if (part instanceof Map || part instanceof Set) {
    return [...part.entries()].map(([key, row]) => [String(key), row]);
  }
  if (Array.isArray(part)) return part.map((row, i) => [`${i}`, row]);
  return undefined;
}

/** State as a list of its parts, each of which can be opened. */
function stateList(state: unknown): HTMLElement {
  return h(
    "div",
    {},
    ...partsOf(state).map(([name, part]) => {
      const rows = rowsOf(part);
      if (rows === undefined) {
        return h("p", {}, `${name}: `, h("code", {}, valueText(part)));
      }
      const list = h("ol");
      const details = h(
        "details",
        {},
        h("summary", {}, `${name}: ${countText(rows.length, "row")}`),
        list,
      );
      // Rows are created once they are looked at.
      details.ontoggle = (): void => {
        if (list.childElementCount > 0) return;
        list.append(
          ...rows.slice(0, INSPECTOR_ROWS_MAX).map(([key, row]) =>
            h("li", {}, h("code", {}, `${key}: ${valueText(row)}`))
          ),
          ...(rows.length > INSPECTOR_ROWS_MAX
            ? [
              h(
                "li",
                { className: "hint" },
                `and ${
                  countText(rows.length - INSPECTOR_ROWS_MAX, "more row")
                }`,
              ),
            ]
            : []),
        );
      };
      return details;
    }),
  );
}

/** One difference as a row. */
function differenceRow(
  { path, change, before, after }: Difference,
): HTMLElement {
  return h(
    "li",
    {},
    h("span", { className: "what" }, change),
    h("span", { dir: "auto" }, path.join(" › ") || "the state"),
    h(
      "code",
      { dir: "auto" },
      ...(change === "added" ? [] : [
        h(
          "del",
          {},
          h("span", { className: "unseen" }, "Then: "),
          valueText(before),
        ),
      ]),
      ...(change === "removed" ? [] : [
        h(
          "ins",
          {},
          h("span", { className: "unseen" }, "Now: "),
          valueText(after),
        ),
      ]),
    ),
  );
}

/** Panel of time travel. */
export class TravelPanel implements Panel {
  readonly element: HTMLElement;
  readonly #model: DeviceModel;
  readonly #canRead: boolean;
  readonly #number: HTMLInputElement;
  readonly #range: HTMLInputElement;
  readonly #go = h("button", { type: "submit", className: "main" }, "Show");
  readonly #cancel: HTMLButtonElement;
  readonly #progress = h("progress", { ariaLabel: "Entries applied" });
  readonly #hint = h("p", { className: "hint", role: "status" });
  readonly #result = h("div", { className: "panel" });
  #first = 0;
  #abort: AbortController | undefined;
  #isTouched = false;

  /** Creates the panel; `canRead` is true if the options say how to read a state. */
  constructor(model: DeviceModel, canRead: boolean) {
    this.#model = model;
    this.#canRead = canRead;
    this.#number = h("input", {
      type: "number",
      step: "1",
      required: true,
      ariaLabel: "Entry",
      oninput: () => this.#touched(this.#number, this.#range),
    });
    this.#range = h("input", {
      type: "range",
      step: "1",
      ariaLabel: "Entry, from the first that is possible to the newest",
      oninput: () => this.#touched(this.#range, this.#number),
      onchange: () => void this.travel(this.#range.valueAsNumber),
    });
    this.#cancel = h("button", {
      type: "button",
      hidden: true,
      onclick: () =>
        this.#abort?.abort(
          new Error(`Entry ${this.#number.value} was cancelled`),
        ),
    }, "Cancel");
    this.#progress.hidden = true;
    const form = h(
      "form",
      {
        className: "bar",
        onsubmit: (event: Event): void => {
          event.preventDefault();
          // Never rejects: a failure is shown.
          void this.travel(this.#number.valueAsNumber);
        },
      },
      h("label", {}, "State as of entry", this.#number),
      this.#range,
      this.#go,
      this.#cancel,
      this.#progress,
    );
    this.element = h(
      "div",
      { className: "panel" },
      form,
      this.#hint,
      this.#result,
    );
  }

  #touched(from: HTMLInputElement, to: HTMLInputElement): void {
    this.#isTouched = true;
    to.value = from.value;
  }

  show(): void {
    const { appliedIndex } = this.#model.replica;
    // Never rejects: a store that cannot be read counts as empty.
    void this.#model.firstState().then((first) => this.#first = first);
    for (const input of [this.#number, this.#range]) {
      input.min = `${this.#first}`;
      input.max = `${appliedIndex}`;
      if (!this.#isTouched) input.value = `${appliedIndex}`;
    }
    if (this.#hint.textContent === "" && this.#result.childElementCount === 0) {
      setText(
        this.#hint,
        `States from entry ${this.#first} to ${appliedIndex} can be computed on this device: a new machine applies the log up to the entry.`,
      );
    }
  }

  /** Shows the state as of an entry. */
  async travel(index: number): Promise<void> {
    this.#abort?.abort(new Error(`Entry ${index} was chosen instead`));
    const abort = this.#abort = new AbortController();
    this.#isTouched = true;
    this.#number.value = this.#range.value = `${index}`;
    this.#progress.max = Math.max(1, index);
    this.#progress.value = 0;
    this.#cancel.hidden = this.#progress.hidden = false;
    setText(this.#hint, `Computing the state as of entry ${index}…`);
    this.#hint.className = "hint";
    try {
      const travelled = await this.#model.travel(
        index,
        abort.signal,
        (reached) => this.#progress.value = reached,
      );
      if (this.#abort !== abort) return;
      this.#show(travelled);
    } catch (error) {
      if (this.#abort !== abort) return;
      this.#result.replaceChildren();
      setText(this.#hint, errorText(error));
      this.#hint.className = abort.signal.aborted ? "hint" : "bad";
    } finally {
      if (this.#abort === abort) {
        this.#abort = undefined;
        this.#cancel.hidden = this.#progress.hidden = true;
      }
    }
  }

  #show(
    { index, base, now, before, after, hash, hashNow, differences }: Travelled,
  ): void {
    const { places, count, isComplete } = differences;
    setText(
      this.#hint,
      `Computed from ${
        base === 0
          ? "the beginning of the log"
          : `the snapshot at entry ${base}`
      }. ${
        this.#canRead
          ? count === 0
            ? "No difference to the present state."
            : `${countText(count, "difference")} to the present state${
              isComplete ? "" : ", more were not compared"
            }.`
          : "Give the inspector the definition of the machine to see what differs."
      }`,
    );
    const side = (
      title: string,
      digits: bigint | undefined,
      state: unknown,
    ): HTMLElement =>
      h(
        "section",
        { className: "box" },
        h("h3", {}, title),
        h(
          "p",
          { className: "hint" },
          digits === undefined ? "no hash" : `hash ${hashText(digits)}`,
        ),
        ...(this.#canRead ? [stateList(state)] : []),
      );
    this.#result.replaceChildren(
      ...(places.length === 0 ? [] : [
        h("h3", {}, "Difference"),
        h(
          "ol",
          { className: "rows differences", ariaLabel: "Differences" },
          ...places.map(differenceRow),
        ),
        ...(count > places.length
          ? [
            h(
              "p",
              { className: "hint" },
              `The first ${places.length} of ${count} are shown.`,
            ),
          ]
          : []),
      ]),
      h(
        "div",
        { className: "both" },
        side(`As of entry ${index}`, hash, before),
        side(`Now, at entry ${now}`, hashNow, after),
      ),
    );
  }

  close(): void {
    this.#abort?.abort(
      new Error(
        `Entry ${this.#number.value} is not shown: inspector is closed`,
      ),
    );
  }
}
