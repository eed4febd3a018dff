/**
 * Two devices side by side, and between them the log as it grows: each frame is a
 * device of its own, with its own stores, connection and plug.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { h, icon, setText } from "./dom.ts";
import type { Applied, FeedMessage, Standing } from "./postings.ts";
import { channelOf, linkTo, type Place } from "./names.ts";
import { reasonOf } from "./words.ts";

const DEVICES = ["left", "right"] as const;
type DeviceName = typeof DEVICES[number];

/** Entries that are shown. */
const SHOWN_MAX = 40;

/** Entry of the log, with the devices that have applied it. */
interface Line {
  readonly entry: Applied;
  /** Device that submitted it, as far as it is one of the two. */
  readonly author: DeviceName | undefined;
  readonly appliedOn: ReadonlySet<string>;
}

function isDevice(name: string): name is DeviceName {
  return (DEVICES as readonly string[]).includes(name);
}

/** Log between two devices. */
class Log {
  readonly element: HTMLElement;
  readonly #list = h("ol", {
    tabIndex: 0,
    ariaLabel: "Log, the newest entry first",
  });
  readonly #standings = h("div", { className: "standings" });
  readonly #verdict = h("p", { className: "verdict", role: "status" });
  readonly #lines = new Map<number, Line>();
  readonly #items = new Map<number, HTMLLIElement>();
  readonly #standing = new Map<string, Standing>();

  constructor(board: string) {
    this.element = h(
      "section",
      { className: "log", ariaLabel: "Log" },
      h("h2", {}, "One log"),
      this.#standings,
      this.#verdict,
      this.#list,
    );
    const channel = new BroadcastChannel(channelOf(board));
    channel.onmessage = ({ data }: MessageEvent<FeedMessage>): void => {
      if (data.type === "applied") this.#applied(data.device, data.entries);
      else if (data.type === "standing" && isDevice(data.device)) {
        this.#standing.set(data.device, data.standing);
        this.#showStandings();
      }
    };
    channel.postMessage({ type: "hello" } satisfies FeedMessage);
    this.#showStandings();
  }

  #applied(device: string, entries: readonly Applied[]): void {
    if (!isDevice(device)) return;
    for (const entry of entries) {
      const known = this.#lines.get(entry.index);
      const line: Line = {
        // The author knows the text that it meant.
        entry: known === undefined || entry.isOwn ? entry : known.entry,
        author: entry.isOwn ? device : known?.author,
        appliedOn: new Set([...known?.appliedOn ?? [], device]),
      };
      this.#lines.set(entry.index, line);
      this.#show(line);
    }
    const indexes = [...this.#lines.keys()].sort((a, b) => b - a);
    for (const index of indexes.slice(SHOWN_MAX)) {
      this.#lines.delete(index);
      this.#items.get(index)?.remove();
      this.#items.delete(index);
    }
  }

  #show({ entry, author, appliedOn }: Line): void {
    const { index, sentence, code } = entry;
    let item = this.#items.get(index);
    if (item === undefined) {
      item = h("li");
      this.#items.set(index, item);
      const next = [...this.#items.keys()].filter((other) => other < index)
        .reduce((most, other) => Math.max(most, other), 0);
      this.#list.insertBefore(item, this.#items.get(next) ?? null);
    }
    const who = author === undefined ? "another device" : `${author} device`;
    const where = appliedOn.size === 2
      ? "applied once on 2 devices"
      : `applied on the ${[...appliedOn][0]} device only`;
    item.className = author ?? "";
    item.classList.toggle("rejected", code !== undefined);
    item.replaceChildren(
      h("span", { className: "index" }, `#${index}`),
      h("p", {}, h("b", {}, who), ` ${sentence}`),
      h(
        "p",
        { className: "where" },
        code === undefined ? where : `rejected: ${reasonOf(code)}`,
      ),
    );
  }

  #showStandings(): void {
    this.#standings.replaceChildren(...DEVICES.map((device) => {
      const standing = this.#standing.get(device);
      return h(
        "div",
        { className: `standing ${device}` },
        h("span", { className: "dot" }),
        h("code", {}, standing?.hash.slice(0, 8) ?? "········"),
        h(
          "small",
          {},
          standing === undefined
            ? "starting"
            : standing.waiting > 0
            ? `${standing.waiting} waiting`
            : `#${standing.applied}`,
        ),
      );
    }));
    const [left, right] = DEVICES.map((name) => this.#standing.get(name));
    const [isEqual, words] = verdictOf(left, right);
    this.#verdict.classList.toggle("equal", isEqual);
    setText(this.#verdict, words);
  }
}

/** Compares two devices, in words. */
function verdictOf(
  left: Standing | undefined,
  right: Standing | undefined,
): [isEqual: boolean, words: string] {
  if (left === undefined || right === undefined) {
    return [false, "The devices are starting"];
  }
  if (left.waiting + right.waiting > 0) {
    return [false, "Each shows its own edits at once, and sends them later"];
  }
  if (left.hash === right.hash && left.applied === right.applied) {
    return [true, "Same entries, same state, same hash"];
  }
  const behind = left.applied < right.applied ? "left" : "right";
  return [false, `The ${behind} device is behind`];
}

/** Shows two devices side by side. */
export function showTwo(place: Place): void {
  document.documentElement.classList.add("two");
  document.title = `${place.board} on two devices · Sampan`;
  const frames = DEVICES.map((device) =>
    h("iframe", {
      className: device,
      title: `${device === "left" ? "Left" : "Right"} device`,
      src: linkTo({ ...place, device, isTwo: false }),
    })
  );
  const log = new Log(place.board);
  document.getElementById("app")!.replaceChildren(
    h(
      "header",
      { className: "top" },
      h("span", { className: "brand" }, icon("boat")),
      h("h1", {}, "Sampan"),
      h(
        "p",
        { className: "pitch" },
        "Two devices share one board. Pull a plug, edit on both, plug in again: every edit is applied once, and both agree.",
      ),
      h("span", { className: "space" }),
      h(
        "nav",
        { ariaLabel: "Sampan" },
        h("a", {
          href: linkTo({ ...place, device: "here", isTwo: false }),
        }, "Open alone"),
        h("a", { href: "playground" }, "Playground"),
        h("a", { href: "guide/" }, "Guides"),
      ),
    ),
    h("main", { className: "stage" }, frames[0]!, log.element, frames[1]!),
  );
  // What the page is, is what its frames are.
  const show = (): void => {
    const all = frames.map((frame) =>
      frame.contentDocument?.documentElement.dataset["sampan"]
    );
    const order = ["failed", "joining", "memory", "following", "leading"];
    document.documentElement.dataset["sampan"] =
      order.find((state) => all.includes(state)) ?? "joining";
  };
  for (const frame of frames) {
    frame.onload = (): void => {
      show();
      new MutationObserver(show).observe(
        frame.contentDocument!.documentElement,
        { attributes: true, attributeFilter: ["data-sampan"] },
      );
    };
  }
}
