/**
 * Panel of an inspected server: its clients, queues, rates, memory and clusters.
 *
 * Needs a page once it is used.
 * This module is browser compatible.
 *
 * @module
 */

import { INSPECTOR_ROWS_MAX } from "../limits.ts";
import type {
  ClientReport,
  ClusterReport,
  EntryReport,
  ServerReport,
} from "../sync/inspector_report.ts";
import { Chart } from "./chart.ts";
import { h, KeyedList, setText } from "./dom.ts";
import type { Card, Fact } from "./facts.ts";
import { Cards, commandText, type Panel, rateText } from "./panels.ts";
import type { ServerModel, ServerSample } from "./server_model.ts";
import {
  agoText,
  countText,
  durationText,
  errorText,
  sizeText,
} from "./show.ts";

/** State of a server as cards. */
export function serverCards(
  { uptimeMs, totals, clientCount }: ServerReport,
  sample: ServerSample | undefined,
): readonly Card[] {
  const known: Fact[] = [
    { label: "Up for", value: durationText(uptimeMs) },
    { label: "Clients", value: countText(clientCount, "client") },
  ];
  if (totals === undefined) return [{ title: "Server", facts: known }];
  const { memory, queuedBytes, appending, creditWaitMs, counts } = totals;
  if (memory !== undefined) {
    known.push({
      label: "Memory",
      value: `${sizeText(memory.rss)}, heap ${sizeText(memory.heap)}`,
    });
  }
  const rate = (value: number | undefined): string =>
    value === undefined ? "–" : rateText(value);
  const bytes = (value: number | undefined): string =>
    value === undefined ? "–" : `${sizeText(value)}/s`;
  const trouble: readonly (readonly [string, string])[] = [
    ["Refused records", "refused"],
    ["Closed with an error", "closed"],
    ["Failed hooks", "hookFailures"],
    ["Diverged clients", "diverged"],
  ];
  return [
    { title: "Server", facts: known },
    {
      title: "Queues",
      facts: [
        { label: "Waiting in sockets", value: sizeText(queuedBytes) },
        { label: "Appends in progress", value: `${appending}` },
        {
          label: "Wait for credit",
          value: creditWaitMs > 0 ? durationText(creditWaitMs) : "none",
          ...(creditWaitMs > 0 ? { tone: "warn" } : {}),
        },
      ],
    },
    {
      title: "Rates",
      facts: [
        { label: "Appended a second", value: rate(sample?.appended) },
        { label: "Sent to readers a second", value: rate(sample?.entries) },
        { label: "Received", value: bytes(sample?.received) },
        { label: "Sent", value: bytes(sample?.sent) },
      ],
    },
    {
      title: "Since the start",
      facts: [
        {
          label: "Appended",
          value: countText(counts["appended"] ?? 0, "record"),
        },
        ...trouble.map(([label, name]): Fact => ({
          label,
          value: `${counts[name] ?? 0}`,
          ...((counts[name] ?? 0) > 0 ? { tone: "warn" } : {}),
        })),
      ],
    },
  ];
}

/** State of a cluster on a server as a card. */
export function clusterCard(cluster: ClusterReport): Card {
  const { clusterID, state, reason, appliedIndex, committedIndex } = cluster;
  const { firstIndex, logBytes = 0, snapshots, sessions, clients } = cluster;
  const [newest] = snapshots;
  return {
    title: `Cluster ${clusterID}`,
    facts: [
      {
        label: "State",
        value: reason === undefined ? state : `${state}: ${reason}`,
        tone: state === "running" && reason === undefined ? "good" : "bad",
      },
      {
        label: "Applied",
        value: `#${appliedIndex} of #${committedIndex}`,
      },
      ...(firstIndex === undefined ? [] : [{
        label: "Log",
        value: `from #${firstIndex}${
          logBytes > 0 ? `, ${sizeText(logBytes)}` : ""
        }`,
      }]),
      ...(cluster.hash === undefined
        ? []
        : [{ label: `Hash at #${cluster.hashIndex}`, value: cluster.hash }]),
      ...(cluster.agreedIndex === undefined ? [] : [{
        label: "Equal on a client",
        value: `at #${cluster.agreedIndex}, ${agoText(cluster.agreedMs ?? 0)}`,
        tone: "good" as const,
      }]),
      {
        label: "Newest snapshot",
        value: newest === undefined
          ? "none"
          : `#${newest.index}, ${sizeText(newest.size)}`,
      },
      {
        label: "Used by",
        value: `${countText(clients, "client")}, ${
          countText(sessions, "session")
        }`,
      },
    ],
  };
}

/** Panel of a server. */
export class ServerPanel implements Panel {
  readonly element: HTMLElement;
  readonly #model: ServerModel;
  readonly #decode: (cmd: Uint8Array) => unknown;
  readonly #hint = h("p", { className: "hint", role: "status" });
  readonly #cards = new Cards();
  readonly #clusters = new Cards();
  readonly #clients: KeyedList<ClientReport>;
  readonly #actions = h("div", { className: "actions" });
  readonly #entries = h("ol", { className: "rows", ariaLabel: "Entries" });
  readonly #appended = new Chart("Appended records a second", [
    { name: "now", colour: "--one", format: rateText },
  ]);
  readonly #latency = new Chart("From append to answer", [
    { name: "median", colour: "--three", format: durationText },
    { name: "95 %", colour: "--two", format: durationText },
  ]);
  readonly #charts: HTMLElement;
  readonly #body: HTMLElement;
  #offered = "";
  #said = "";

  /** Creates the panel of a model. */
  constructor(model: ServerModel, decode: (cmd: Uint8Array) => unknown) {
    this.#model = model;
    this.#decode = decode;
    const clients = h("ol", { className: "rows", ariaLabel: "Clients" });
    this.#clients = new KeyedList(
      clients,
      (client) => JSON.stringify({ ...client, connectedMs: 0 }),
      (client) => {
        const { connection, principal, address, clusters } = client;
        const { streams, queuedBytes, isAppending } = client;
        return h(
          "li",
          {},
          h("span", { className: "what" }, `${connection}`),
          h(
            "span",
            { className: "what", dir: "auto" },
            principal ?? "anonymous",
          ),
          h(
            "span",
            { className: "more" },
            clusters.length === 0
              ? "no cluster open"
              : `clusters ${clusters.join(", ")}`,
          ),
          h(
            "span",
            { className: "side" },
            [
              countText(streams, "stream"),
              queuedBytes > 0 ? `${sizeText(queuedBytes)} waiting` : "",
              isAppending ? "appends" : "",
              address ?? "",
            ].filter((part) => part !== "").join(" · "),
          ),
        );
      },
    );
    this.#charts = h(
      "div",
      { className: "charts" },
      this.#appended.element,
      this.#latency.element,
    );
    this.#body = h(
      "div",
      { className: "panel", hidden: true },
      this.#charts,
      this.#cards.element,
      h("h3", {}, "Clusters"),
      this.#clusters.element,
      this.#actions,
      this.#entries,
      h("h3", {}, "Clients"),
      clients,
    );
    this.element = h("div", { className: "panel" }, this.#hint, this.#body);
  }

  show(): void {
    const { report, problem, samples } = this.#model;
    setText(
      this.#hint,
      problem ?? (report === undefined ? "Asking the server…" : this.#said),
    );
    this.#hint.className = problem === undefined ? "hint" : "bad";
    this.#body.hidden = report === undefined;
    if (report === undefined) return;
    this.#charts.hidden = report.totals === undefined;
    this.#appended.show(samples.map(({ at, appended }) => [at, appended]));
    this.#latency.show(
      samples.map(({ at, median, high }) => [at, median, high]),
    );
    this.#cards.show(serverCards(report, samples.at(-1)));
    this.#clusters.show(report.clusters.map(clusterCard));
    this.#clients.show(report.clients.slice(0, INSPECTOR_ROWS_MAX));
    this.#offer(report);
  }

  /** Offers what the permission allows. */
  #offer({ clusters, may }: ServerReport): void {
    const ids = clusters.map(({ clusterID }) => clusterID);
    const offered = JSON.stringify([ids, may]);
    if (offered === this.#offered) return;
    this.#offered = offered;
    const action = (text: string, run: () => Promise<string>): HTMLElement =>
      h("button", {
        type: "button",
        onclick: () => void this.#run(run),
      }, text);
    this.#actions.replaceChildren(
      ...ids.flatMap((id) => [
        ...(may.commands
          ? [
            action(`Entries of cluster ${id}`, async () => {
              const entries = await this.#model.entries(id);
              this.#showEntries(entries);
              return `${
                countText(entries.length, "entry", "entries")
              } of cluster ${id}, the newest first`;
            }),
          ]
          : []),
        ...(may.act
          ? [
            action(
              `Snapshot of cluster ${id}`,
              async () =>
                `Snapshot of cluster ${id} taken at entry ${await this.#model
                  .snapshot(id)}`,
            ),
          ]
          : []),
      ]),
    );
  }

  async #run(action: () => Promise<string>): Promise<void> {
    try {
      this.#said = await action();
    } catch (error) {
      this.#said = errorText(error);
    }
    setText(this.#hint, this.#said);
  }

  #showEntries(entries: readonly EntryReport[]): void {
    this.#entries.replaceChildren(
      ...[...entries].reverse().map(
        ({ index, kind, cmd, text = "", session }) => {
          const bytes = cmd === undefined
            ? undefined
            : Uint8Array.from(atob(cmd), (c) => c.charCodeAt(0));
          const { what, more, side } = bytes === undefined
            ? { what: kind, more: text, side: "" }
            : commandText(this.#decode(bytes), bytes);
          return h(
            "li",
            {},
            h("span", { className: "what" }, `#${index}`),
            h("span", { className: "what", dir: "auto" }, what),
            h("span", { className: "more", dir: "auto" }, more),
            h(
              "span",
              { className: "side" },
              [side, session === undefined ? "" : `session #${session}`]
                .filter((part) => part !== "").join(" · "),
            ),
          );
        },
      ),
    );
  }

  close(): void {
    this.#appended.close();
    this.#latency.close();
  }
}
