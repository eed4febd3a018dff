/**
 * The replicas as the page shows them: state, hash, applied index, and buttons for
 * all that can happen to one.
 *
 * @module
 */

import { create, hiddenText, setText } from "./elements.ts";
import type { HashName } from "./machine.ts";
import {
  type Action,
  HASH_ENTRIES,
  type ReplicaView,
  type World,
} from "./world.ts";

/** Longest value that is shown large, in characters. */
const VALUE_LENGTH_MAX = 14;

type Verb = Exclude<Action["do"], "propose">;

/** Button that does one thing, or undoes it. */
interface Control {
  readonly does: Verb;
  readonly label: string;
  /** Action while the first one makes no sense. */
  readonly undoes?: readonly [verb: Verb, label: string];
  readonly title: string;
}

const PROCESS: readonly Control[] = [
  {
    does: "pause",
    label: "Pause",
    undoes: ["resume", "Resume"],
    title: "Stop the process, as a laptop that sleeps",
  },
  {
    does: "crash",
    label: "Crash",
    undoes: ["restart", "Restart"],
    title: "End the process: its memory is gone",
  },
  {
    does: "cut",
    label: "Cut off",
    undoes: ["join", "Reconnect"],
    title: "No message arrives in either direction",
  },
  {
    does: "slow",
    label: "Slow down",
    undoes: ["fast", "Speed up"],
    title: "Messages take five times as long",
  },
];

const LOG: readonly Control[] = [
  {
    does: "snapshot",
    label: "Snapshot",
    title: "Save the state, for all replicas",
  },
  {
    does: "compact",
    label: "Compact log",
    title: "Drop what the older of two snapshots has",
  },
];

const FAULTS: readonly Control[] = [
  {
    does: "lose",
    label: "Lose",
    title: "The next message to the log is lost",
  },
  {
    does: "lose answer",
    label: "Lose answer",
    title: "The next message arrives, and the log's answer is lost",
  },
  {
    does: "double",
    label: "Double",
    title: "The next message to the log arrives twice",
  },
];

/** State of a replica in a word, with its weight. */
function phaseOf(
  { phase, link, differs }: ReplicaView,
): readonly [text: string, weight: "good" | "plain" | "warning"] {
  switch (phase) {
    case "starting":
      return ["starting", "plain"];
    case "paused":
      return ["paused", "plain"];
    case "crashed":
      return ["crashed", "warning"];
    case "failed":
      return ["stopped", "warning"];
    case "diverged":
      return [`differs from A by #${differs?.upTo}`, "warning"];
    case "running":
      if (link.isCut) return ["cut off", "warning"];
      return link.isSlow ? ["slow network", "plain"] : ["running", "good"];
  }
}

/** Sentence in place of a state that there is not. */
function absence({ phase, failure }: ReplicaView): string {
  switch (phase) {
    case "crashed":
      return "No process, no memory. The log and the snapshots are elsewhere.";
    case "failed":
      return `update() or the log failed: ${failure}`;
    default:
      return "No state yet: it waits for the log.";
  }
}

/** Paints a hash. */
function paint(swatch: HTMLElement, hash: HashName | undefined): void {
  swatch.hidden = hash === undefined;
  if (hash === undefined) return;
  swatch.style.setProperty("--hue", `${hash.hue}`);
  swatch.style.setProperty("--second", `${hash.second.toFixed(0)}`);
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Time of day with tenths of a second. */
function timeOf(ms: number): string {
  return new Date(ms).toISOString().slice(11, 21);
}

/** One replica. */
class Card {
  readonly element: HTMLElement;
  readonly #view: ReplicaView;
  readonly #phase = create("span", "phase");
  readonly #state = create("dl", "state");
  readonly #applied = create("b");
  readonly #swatch = create("i");
  readonly #hash = create("b");
  readonly #clock = create("span", "clock");
  readonly #bar = create("i");
  readonly #waits = create("p", "waits");
  readonly #offers = create("div", "offers");
  readonly #skip = create("button", "mend");
  readonly #buttons: (readonly [Control, HTMLButtonElement])[] = [];
  readonly #act: (action: Action) => void;
  #shown = "";

  constructor(
    view: ReplicaView,
    act: (action: Action) => void,
    isInSession: () => boolean,
    commands: readonly string[],
  ) {
    this.#view = view;
    this.#act = act;
    const { name } = view;
    const title = create("h3", "", `Replica ${name}`);
    title.id = `replica-${name}`;
    const hash = create("span", "hash", "hash ", this.#swatch, this.#hash);
    hash.title = `Hash of the state; compared at every ${HASH_ENTRIES}th entry`;
    for (const command of commands) {
      const button = create("button", "", command);
      button.type = "button";
      button.append(hiddenText(` at ${name}`));
      button.onclick = () =>
        act({ do: "propose", on: name, command, session: isInSession() });
      this.#offers.append(button);
    }
    this.#skip.type = "button";
    this.#skip.onclick = () => act({ do: "skip", on: name });
    this.#clock.title = "Time on the clock of this replica";
    this.#swatch.setAttribute("aria-hidden", "true");
    const bar = create("div", "bar", this.#bar);
    bar.setAttribute("aria-hidden", "true");
    this.element = create(
      "section",
      `replica ${name.toLowerCase()}`,
      create("div", "name", title, this.#clock, this.#phase),
      this.#state,
      bar,
      create(
        "div",
        "facts",
        create("span", "", "applied ", this.#applied),
        hash,
      ),
      this.#waits,
      this.#skip,
      this.#offers,
      this.#row("", PROCESS),
      this.#row("", LOG),
      this.#row("Next message", FAULTS),
    );
    this.element.setAttribute("aria-labelledby", title.id);
  }

  #row(what: string, controls: readonly Control[]): HTMLElement {
    const row = create("div", "does");
    if (what !== "") row.append(create("span", "what", what));
    for (const control of controls) {
      const button = create("button");
      button.type = "button";
      button.title = control.title;
      button.onclick = () => this.#act(this.#actionOf(control));
      row.append(button);
      this.#buttons.push([control, button]);
    }
    return row;
  }

  #isUndo({ does, undoes }: Control): boolean {
    const { phase, link } = this.#view;
    switch (does) {
      case "pause":
        return phase === "paused";
      case "crash":
        return phase === "crashed";
      case "cut":
        return link.isCut;
      case "slow":
        return link.isSlow;
      default:
        return undoes !== undefined;
    }
  }

  #actionOf(control: Control): Action {
    const verb = this.#isUndo(control) ? control.undoes![0] : control.does;
    return { do: verb, on: this.#view.name };
  }

  update(world: World): void {
    const view = this.#view;
    const [phase, weight] = phaseOf(view);
    this.element.dataset.phase = view.phase;
    setText(this.#phase, phase);
    this.#phase.dataset.is = weight;
    this.#showState();
    const { applied, hash, waiting, link } = view;
    setText(
      this.#applied,
      view.phase === "crashed" ? "nothing" : `#${applied} of ${world.last}`,
    );
    this.#swatch.parentElement!.hidden = hash === undefined;
    this.#bar.style.width = `${100 * applied / Math.max(1, world.last)}%`;
    setText(this.#hash, hash?.text ?? "");
    paint(this.#swatch, hash);
    const commands = [...waiting.values()].map(({ command }) => command);
    setText(
      this.#waits,
      commands.length === 0
        ? ""
        : `waits for the result of ${commands.join(", ")}`,
    );
    this.#skip.hidden = !world.can({ do: "skip", on: view.name });
    setText(this.#skip, `Skip #${view.failedAt} on every replica`);
    this.#offers.hidden = !this.#skip.hidden;
    for (const button of this.#offers.querySelectorAll("button")) {
      button.disabled = view.phase !== "running";
    }
    for (const [control, button] of this.#buttons) {
      const action = this.#actionOf(control);
      const label = this.#isUndo(control) ? control.undoes![1] : control.label;
      const words = `${label} ${view.name}`;
      if (button.dataset.words !== words) {
        button.dataset.words = words;
        button.replaceChildren(label, hiddenText(`, replica ${view.name}`));
      }
      button.disabled = !world.can(action);
      if (FAULTS.includes(control)) {
        button.setAttribute("aria-pressed", `${link.fault === control.does}`);
      }
    }
  }

  /** Shows the time on the clock of the replica. */
  tick(): void {
    const { isAlive, clock } = this.#view;
    setText(this.#clock, isAlive ? timeOf(clock) : "");
  }

  #showState(): void {
    const { state } = this.#view;
    const key = state ?? absence(this.#view);
    if (key === this.#shown) return;
    this.#shown = key;
    if (state === undefined) {
      this.#state.className = "state none";
      return this.#state.replaceChildren(create("div", "", key));
    }
    const value = JSON.parse(state) as unknown;
    const rows = Array.isArray(value)
      ? [["list", value] as const]
      : Object.entries(value as Record<string, unknown>);
    const isLong = rows.length > 2 ||
      rows.some(([, part]) => textOf(part).length > VALUE_LENGTH_MAX);
    this.#state.className = isLong ? "state many" : "state";
    this.#state.replaceChildren(
      ...rows.map(([name, part]) =>
        create(
          "div",
          "",
          create("dt", "", name),
          create("dd", "", textOf(part)),
        )
      ),
    );
  }
}

/** End of the wire of a replica, for a narrow page where the cards are further down. */
class Port {
  readonly element: HTMLElement;
  readonly #view: ReplicaView;
  readonly #state = create("b");
  readonly #swatch = create("i");
  readonly #hash = create("span");

  constructor(view: ReplicaView) {
    this.#view = view;
    const hash = create("span", "", this.#swatch, this.#hash);
    const { name } = view;
    this.element = create(
      "div",
      `port ${name.toLowerCase()}`,
      create("span", "", name),
      this.#state,
      hash,
    );
  }

  update(): void {
    const { state, hash } = this.#view;
    const values = state === undefined
      ? []
      : Object.values(JSON.parse(state) as Record<string, unknown>);
    setText(this.#state, values.map(textOf).join(" ") || "–");
    setText(this.#hash, hash?.text ?? phaseOf(this.#view)[0]);
    paint(this.#swatch, hash);
  }
}

/** The three replicas. */
export class Cards {
  readonly #list: HTMLElement;
  readonly #ends: HTMLElement;
  readonly #act: (action: Action) => void;
  readonly #isInSession: () => boolean;
  #cards: readonly Card[] = [];
  #ports: readonly Port[] = [];
  #world: World | undefined;

  /** Creates the cards in one element, and the ends of the wires in another; `act` is called with what the person does. */
  constructor(
    list: HTMLElement,
    ends: HTMLElement,
    act: (action: Action) => void,
    isInSession: () => boolean,
  ) {
    this.#list = list;
    this.#ends = ends;
    this.#act = act;
    this.#isInSession = isInSession;
  }

  /** Shows the replicas of a world. */
  update(world: World): void {
    if (world !== this.#world) {
      this.#world = world;
      const { commands } = world.machine;
      this.#cards = world.replicas.map((view) =>
        new Card(view, this.#act, this.#isInSession, commands)
      );
      this.#ports = world.replicas.map((view) => new Port(view));
      this.#list.replaceChildren(...this.#cards.map(({ element }) => element));
      this.#ends.replaceChildren(...this.#ports.map(({ element }) => element));
    }
    for (const card of this.#cards) card.update(world);
    for (const port of this.#ports) port.update();
  }

  /** Shows the times on the clocks. */
  tick(): void {
    for (const card of this.#cards) card.tick();
  }
}
