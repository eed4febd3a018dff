/**
 * Custom element `<sampan-inspector>`.
 *
 * Needs a page once it is used; it can be imported without one.
 * This module is browser compatible.
 *
 * @module
 */

import { type Comparison, DeviceModel } from "./device_model.ts";
import { decoded } from "./log_tail.ts";
import { h, saveFile, setText } from "./dom.ts";
import { comparisonFacts } from "./facts.ts";
import { checkInspector, type InspectorOptions } from "./options.ts";
import {
  LogPanel,
  outboxPanel,
  OverviewPanel,
  type Panel,
  sessionsPanel,
  snapshotsPanel,
} from "./panels.ts";
import { ServerModel } from "./server_model.ts";
import { ServerPanel } from "./server_panel.ts";
import { ServersPanel } from "./servers_panel.ts";
import { errorText, shortText, sizeText } from "./show.ts";
import { styleSheet } from "./style.ts";
import { TravelPanel } from "./travel_panel.ts";

/** Name of the element in a page. */
export const INSPECTOR_TAG = "sampan-inspector";

/** Number of inspectors of this page, so that each has ids of its own. */
let inspectors = 0;

/** Tab of the inspector with its panel. */
interface Tab {
  readonly name: string;
  readonly panel: Panel;
  readonly button: HTMLButtonElement;
  readonly box: HTMLElement;
  /** Number beside the name, if it has one. */
  readonly count?: () => number;
  readonly counter: HTMLElement;
}

/** Content of an inspector while it is in a page. */
class Content {
  readonly element: HTMLElement;
  readonly #options: InspectorOptions;
  readonly #device: DeviceModel | undefined;
  readonly #server: ServerModel | undefined;
  readonly #overview: OverviewPanel | undefined;
  readonly #travel: TravelPanel | undefined;
  readonly #tabs: Tab[] = [];
  readonly #id = `sampan-inspector-${++inspectors}`;
  readonly #about = h("p", { className: "about" });
  readonly #pill = h("p", { className: "pill" });
  readonly #said = h("p", { className: "said", role: "status" });
  readonly #confirm = h("div", { className: "confirm", hidden: true });
  readonly #unwatch: (() => void)[] = [];
  #network: HTMLButtonElement | undefined;
  #shown: Tab | undefined;
  #frame: number | undefined;
  readonly #replaced: (replica: unknown) => void;
  #known: unknown;

  constructor(
    options: InspectorOptions,
    replaced: (replica: unknown) => void,
  ) {
    this.#options = options;
    this.#replaced = replaced;
    const { replica, source, machine } = options;
    const list = h("div", {
      className: "tabs",
      role: "tablist",
      ariaLabel: "Parts of the inspector",
      onkeydown: (event) => this.#moveTab(event),
    });
    const panels: HTMLElement[] = [];
    const add = (name: string, panel: Panel, count?: () => number): void => {
      const tab = this.#tabOf(name, panel, count);
      this.#tabs.push(tab);
      list.append(tab.button);
      panels.push(tab.box);
    };
    if (replica !== undefined) {
      const device = this.#device = new DeviceModel({ ...options, replica });
      this.#known = device.replica;
      this.#overview = new OverviewPanel(
        device,
        () => options.network?.isOnline ?? true,
      );
      this.#travel = new TravelPanel(device, machine?.stateOf !== undefined);
      add("Overview", this.#overview);
      add("Log", new LogPanel(device, (index) => this.#travelTo(index)));
      add("Time travel", this.#travel);
      add("Outbox", outboxPanel(device), () => device.replica.pendingCount);
      add(
        "Sessions",
        sessionsPanel(device),
        () => device.report?.sessions.length ?? 0,
      );
      add(
        "Snapshots",
        snapshotsPanel(device),
        () => device.report?.snapshots.length ?? 0,
      );
      this.#unwatch.push(device.watch(() => this.#showSoon()));
    }
    if (source !== undefined) {
      const server = this.#server = new ServerModel({ ...options, source });
      const decode = (cmd: Uint8Array): unknown =>
        machine?.decode && decoded((cmd) => machine.decode!(cmd), cmd);
      add("Server", new ServerPanel(server, decode));
      this.#unwatch.push(server.watch(() => this.#showSoon()));
      this.#addServers(options, server, add);
    }
    this.element = h(
      "div",
      { className: "frame", role: "region", ariaLabel: "Inspector" },
      h("div", { className: "head" }, this.#about, this.#pill),
      ...(replica === undefined ? [] : [this.#actions()]),
      this.#said,
      this.#confirm,
      list,
      ...panels,
    );
    const [first] = this.#tabs;
    if (first !== undefined) this.#select(first);
    else {setText(
        this.#about,
        "Nothing to show: set options.replica or a source.",
      );}
    this.#show();
  }

  // ---------------------------------------------------------------------- tabs

  /** Adds the panel of all servers, if there are several. */
  #addServers(
    options: InspectorOptions,
    first: ServerModel,
    add: (name: string, panel: Panel, count?: () => number) => void,
  ): void {
    const { peers = [] } = options;
    if (peers.length === 0) return;
    const models = [
      first,
      ...peers.map((source) => new ServerModel({ ...options, source })),
    ];
    const { replica } = options;
    add("Servers", new ServersPanel(models, replica), () => models.length);
    for (const model of models.slice(1)) {
      this.#unwatch.push(model.watch(() => this.#showSoon()));
      this.#unwatch.push(() => model.close());
    }
  }

  #tabOf(name: string, panel: Panel, count: (() => number) | undefined): Tab {
    const id = `${this.#id}-${name.replace(" ", "-").toLowerCase()}`;
    const counter = h("span", { className: "count" });
    const button = h(
      "button",
      {
        type: "button",
        id: `${id}-tab`,
        role: "tab",
        tabIndex: -1,
        "aria-controls": id,
        "aria-selected": "false",
        onclick: () => this.#select(tab),
      },
      name,
      counter,
    );
    const box = h("div", {
      id,
      role: "tabpanel",
      hidden: true,
      "aria-labelledby": `${id}-tab`,
    }, panel.element);
    const tab: Tab = {
      name,
      panel,
      button,
      box,
      counter,
      ...(count === undefined ? {} : { count }),
    };
    return tab;
  }

  #select(tab: Tab): void {
    this.#shown = tab;
    for (const one of this.#tabs) {
      const isShown = one === tab;
      one.button.ariaSelected = `${isShown}`;
      one.button.tabIndex = isShown ? 0 : -1;
      one.box.hidden = !isShown;
    }
    // On a phone, the tabs are wider than the screen.
    tab.button.scrollIntoView({ block: "nearest", inline: "nearest" });
    tab.panel.show();
  }

  #moveTab(event: KeyboardEvent): void {
    const at = this.#tabs.indexOf(this.#shown!);
    const { length } = this.#tabs;
    const isRTL = getComputedStyle(this.element).direction === "rtl";
    const next = ({
      ArrowRight: at + (isRTL ? -1 : 1),
      ArrowLeft: at + (isRTL ? 1 : -1),
      Home: 0,
      End: length - 1,
    } as Readonly<Record<string, number>>)[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const tab = this.#tabs[(next + length) % length]!;
    this.#select(tab);
    tab.button.focus();
  }

  #travelTo(index: number): void {
    const tab = this.#tabs.find(({ panel }) => panel === this.#travel)!;
    this.#select(tab);
    tab.button.focus();
    // Never rejects: a failure is shown.
    void this.#travel!.travel(index);
  }

  // ------------------------------------------------------------------- showing

  /** Shows the present state with the next frame, once for all changes before. */
  #showSoon(): void {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = undefined;
      this.#show();
    });
  }

  #show(): void {
    const device = this.#device;
    if (device !== undefined) {
      const { replica } = device;
      if (replica !== this.#known) {
        this.#known = replica;
        this.#replaced(replica);
      }
      const { state } = replica.status;
      setText(
        this.#about,
        `applied up to #${
          replica.appliedIndex.toLocaleString("en")
        } · cluster ${shortText(`${replica.clusterID}`)}`,
      );
      this.#about.title = `Cluster ${replica.clusterID}`;
      setText(this.#pill, state);
      this.#pill.className = `pill ${
        state === "running" ? "" : state === "blocked" ? "warn" : "bad"
      }`;
      this.#showNetwork();
    } else if (this.#server !== undefined) {
      const { problem, report } = this.#server;
      setText(
        this.#pill,
        problem === undefined
          ? report === undefined ? "asking" : "answers"
          : "no answer",
      );
      this.#pill.className = `pill ${problem === undefined ? "" : "bad"}`;
    } else this.#pill.hidden = true;
    for (const { count, counter } of this.#tabs) {
      const number = count?.() ?? 0;
      setText(counter, number === 0 ? "" : ` ${number.toLocaleString("en")}`);
    }
    this.#shown?.panel.show();
  }

  #say(text: string, isBad = false): void {
    setText(this.#said, text);
    this.#said.className = isBad ? "said bad" : "said";
  }

  // ------------------------------------------------------------------- actions

  #actions(): HTMLElement {
    const { host, network, restart, startOver } = this.#options;
    const device = this.#device!;
    const button = (
      text: string,
      title: string,
      onclick: () => void,
    ): HTMLButtonElement =>
      h("button", { type: "button", title, onclick }, text);
    if (network !== undefined) {
      this.#network = button("Go offline", "Pull the plug of this page", () => {
        network.isOnline = !network.isOnline;
        this.#say(
          network.isOnline
            ? "Online again"
            : "Offline until you go online again",
        );
        this.#showNetwork();
      });
    }
    const canStartOver = startOver !== undefined || host?.logDB.isCopy === true;
    const hasOutbox = host !== undefined;
    return h(
      "div",
      { className: "actions", role: "group", ariaLabel: "Actions" },
      ...(this.#network === undefined ? [] : [this.#network]),
      button(
        "Snapshot",
        "Save the present state on this device, from which a start continues",
        () =>
          void this.#run("Taking a snapshot…", async () => {
            const { index, size } = await device.snapshot();
            return `Snapshot taken at entry ${index}, ${sizeText(size)}`;
          }),
      ),
      button(
        "Compare hashes",
        "Compare this state with the server's, and with a replay of the log",
        () =>
          void this.#run("Comparing hashes…", async () => {
            const comparison = await device.compare();
            this.#overview!.comparison = comparison;
            this.#show();
            return comparisonText(comparison);
          }),
      ),
      ...(host === undefined ? [] : [
        button(
          "Export to a file",
          "Save the state, and the edits that wait, as files",
          () =>
            void this.#run("Exporting…", async () => {
              const files = await device.exportFiles();
              for (const { name, content } of files) saveFile(name, content);
              return `Exported ${
                files.map(({ name, content }) =>
                  `${name} (${sizeText(content.size)})`
                ).join(" and ")
              }`;
            }),
        ),
      ]),
      ...(hasOutbox || restart !== undefined ? [this.#importer()] : []),
      ...(canStartOver ? [this.#startOver()] : []),
    );
  }

  #importer(): HTMLElement {
    const input = h("input", {
      type: "file",
      accept: ".snapshot,.json",
      onchange: () => {
        const [file] = input.files ?? [];
        input.value = "";
        if (file === undefined) return;
        const take = (): void =>
          void this.#run(
            `Importing ${file.name}…`,
            () => this.#device!.importFile(file),
          );
        if (!file.name.endsWith(".snapshot")) return take();
        this.#ask(
          `Replace the state of this device by ${file.name}? It is checked first; the state before is brought back if it does not start.`,
          "Replace the state",
          take,
        );
      },
    });
    return h("label", { className: "file" }, "Import a file", input);
  }

  #startOver(): HTMLElement {
    return h("button", {
      type: "button",
      className: "danger",
      onclick: () =>
        this.#ask(
          "Start over? State, snapshots and log on this device are removed and fetched from the server again. Edits that wait stay.",
          "Start over now",
          () =>
            void this.#run("Starting over…", async () => {
              await this.#device!.startOver();
              return "Started over";
            }),
        ),
    }, "Start over");
  }

  /** Asks before something that cannot be undone. */
  #ask(question: string, yes: string, run: () => void): void {
    const close = (): void => {
      this.#confirm.hidden = true;
    };
    const no = h("button", { type: "button", onclick: close }, "Leave it");
    this.#confirm.setAttribute("role", "group");
    this.#confirm.ariaLabel = question;
    this.#confirm.replaceChildren(
      h("p", {}, question),
      no,
      h("button", {
        type: "button",
        className: "main",
        onclick: () => {
          close();
          run();
        },
      }, yes),
    );
    this.#confirm.hidden = false;
    no.focus();
  }

  async #run(begin: string, action: () => Promise<string>): Promise<void> {
    this.#say(begin);
    try {
      this.#say(await action());
    } catch (error) {
      this.#say(errorText(error), true);
    }
  }

  #showNetwork(): void {
    const { network } = this.#options;
    if (this.#network === undefined || network === undefined) return;
    setText(this.#network, network.isOnline ? "Go offline" : "Go online");
  }

  close(): void {
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame);
    for (const end of this.#unwatch) end();
    for (const { panel } of this.#tabs) panel.close?.();
    this.#device?.close();
    this.#server?.close();
  }
}

/** Result of a comparison of hashes in a sentence. */
function comparisonText(comparison: Comparison): string {
  return `Entry ${comparison.index}: ${
    comparisonFacts(comparison).map(({ label, value }) =>
      label === "Server" || label === "Replay"
        ? `${label.toLowerCase()}: ${value}`
        : value
    ).join("; ")
  }`;
}

/**
 * Custom element that shows a replica, a server, or both: its log, outbox, sessions,
 * snapshots, connections, rates and earlier states. Set `options`, or the attribute
 * `source` for a server alone. It works while it is in a page, and does nothing
 * otherwise.
 *
 * Dispatches `replica` after a start over or an import, with the new replica as its
 * `detail`: use that one from then on.
 */
export interface SampanInspector extends HTMLElement {
  /**
   * Replica and server that are shown, and what may be done with them. Setting it
   * throws a `TypeError` if an option is of another type.
   */
  options: InspectorOptions;
}

/** Creates the class of the element; where there is no page, it has nothing to extend. */
function elementClass(): CustomElementConstructor {
  return class extends HTMLElement implements SampanInspector {
    static readonly observedAttributes: readonly string[] = ["source"];
    #options: InspectorOptions = {};
    #content: Content | undefined;

    get options(): InspectorOptions {
      return this.#options;
    }

    set options(options: InspectorOptions) {
      checkInspector(options);
      this.#options = { ...options };
      this.#restart();
    }

    connectedCallback(): void {
      this.#restart();
    }

    disconnectedCallback(): void {
      this.#content?.close();
      this.#content = undefined;
    }

    attributeChangedCallback(): void {
      this.#restart();
    }

    #restart(): void {
      this.#content?.close();
      this.#content = undefined;
      if (!this.isConnected) return;
      const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
      root.adoptedStyleSheets = [styleSheet()];
      const source = this.getAttribute("source");
      this.#content = new Content(
        source === null ? this.#options : { source, ...this.#options },
        (detail) => this.dispatchEvent(new CustomEvent("replica", { detail })),
      );
      root.replaceChildren(this.#content.element);
    }
  };
}

/** Registers the element `<sampan-inspector>` in this page; does nothing if it is registered. */
export function defineInspector(): void {
  if (customElements.get(INSPECTOR_TAG) === undefined) {
    customElements.define(INSPECTOR_TAG, elementClass());
  }
}

/**
 * Creates an inspector, which the caller puts into a page.
 *
 * ```ts ignore
 * const { inspect } = await import("@sampan/sampan/inspector");
 * document.body.append(inspect({ host, replica, machine: board }));
 * ```
 *
 * @throws TypeError if an option is of another type
 */
export function inspect(options: InspectorOptions): SampanInspector {
  defineInspector();
  const element = document.createElement(INSPECTOR_TAG) as SampanInspector;
  element.options = options;
  return element;
}
