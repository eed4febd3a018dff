/**
 * Panel of all servers on one log, beside each other.
 *
 * Needs a page once it is used.
 * This module is browser compatible.
 *
 * @module
 */

import { INSPECTOR_POLL_MS } from "../limits.ts";
import type {
  ClusterReport,
  ServerReport,
  TurnWaitReport,
} from "../sync/inspector_report.ts";
import { h } from "./dom.ts";
import type { Card, Fact } from "./facts.ts";
import { Cards, type Panel } from "./panels.ts";
import { agoText, countText, durationText, sizeText } from "./show.ts";

/** Time without an answer after which a server is shown as late, in milliseconds. */
const LATE_MS = 3 * INSPECTOR_POLL_MS;

/** Server, as far as it has answered. */
export interface SeenServer {
  /** URL of its inspector. */
  readonly source: string;
  /** Last answer; undefined before the first. */
  readonly report: ServerReport | undefined;
  /** Reason why it did not answer last; undefined if it did. */
  readonly problem: string | undefined;
  /** Time since its last answer, in milliseconds. */
  readonly answeredMs: number;
}

/** Replica of this page. */
export interface OwnReplica {
  readonly clusterID: bigint;
  readonly nodeID: bigint;
}

function stateOf({ report, problem, answeredMs }: SeenServer): Fact {
  const label = "State";
  if (problem !== undefined) {
    const since = report === undefined
      ? ""
      : `, last answer ${agoText(answeredMs)}`;
    return { label, value: `does not answer${since}`, tone: "bad" };
  }
  if (report === undefined) return { label, value: "is asked" };
  if (answeredMs > LATE_MS) {
    return {
      label,
      value: `answers late, last ${agoText(answeredMs)}`,
      tone: "warn",
    };
  }
  const { hasQuorum = true, lostMs = 0 } = report.reach ?? {};
  return hasQuorum ? { label, value: "running", tone: "good" } : {
    label,
    value: `cut off from the log for ${durationText(lostMs)}`,
    tone: "warn",
  };
}

function turnWaitText(
  { waitedMs, holder, heldMs = 0 }: TurnWaitReport,
): string {
  const wait = `waits ${durationText(waitedMs)} for its turn to append`;
  return holder === undefined
    ? wait
    : `${wait}, which ${holder} has for ${durationText(heldMs)}`;
}

function roleOf(
  { hasTurn, turnWait }: ClusterReport,
  isOnDuty: boolean | undefined,
): Fact {
  const value = turnWait !== undefined
    ? turnWaitText(turnWait)
    : hasTurn === undefined
    ? "appends, like the others"
    : hasTurn
    ? "has the turn to append"
    : "appends when its turn comes";
  return {
    label: "Role",
    value: isOnDuty === true ? `${value}; takes the snapshots` : value,
  };
}

function appliedOf({ appliedIndex }: ClusterReport, newest: number): Fact {
  const behind = Math.max(0, newest - appliedIndex);
  const distance = behind === 0
    ? "the newest"
    : `${countText(behind, "entry", "entries")} behind`;
  return {
    label: "Applied",
    value: `#${appliedIndex}, ${distance}`,
    ...(behind > 0 ? { tone: "warn" as const } : {}),
  };
}

/** Hash of a server's state, compared with those of the others at the same index. */
function hashOf(
  { hash, hashIndex }: ClusterReport,
  others: readonly ClusterReport[],
): Fact[] {
  if (hash === undefined) return [];
  const same = others.filter((one) => one.hashIndex === hashIndex);
  const differs = same.some((one) => one.hash !== hash);
  return [{
    label: `Hash at #${hashIndex}`,
    value: differs
      ? `${hash}, another server has another one`
      : same.length > 0
      ? `${hash}, equal on ${countText(same.length, "other server")}`
      : hash,
    ...(differs
      ? { tone: "bad" as const }
      : same.length > 0
      ? { tone: "good" as const }
      : {}),
  }];
}

/** State of the servers as cards. */
export function serversCards(
  servers: readonly SeenServer[],
  own: OwnReplica | undefined,
): readonly Card[] {
  const clusterOf = (
    { report }: SeenServer,
  ): ClusterReport | undefined =>
    own === undefined
      ? report?.clusters[0]
      : report?.clusters.find(({ clusterID }) =>
        clusterID === `${own.clusterID}`
      );
  const answering = servers.filter(({ problem }) => problem === undefined);
  const newest = Math.max(
    0,
    ...answering.map((one) => clusterOf(one)?.appliedIndex ?? 0),
  );
  return servers.map((server) => {
    const { source, report, problem } = server;
    const cluster = clusterOf(server);
    const isHere = own !== undefined && problem === undefined &&
      report?.clients.some(({ nodes }) => nodes?.includes(`${own.nodeID}`));
    const others = answering.filter((one) => one !== server)
      .flatMap((one) => clusterOf(one) ?? []);
    const memory = report?.totals?.memory;
    const address = new URL(source, "http://localhost").host;
    return {
      title: `${report?.name ?? address}${isHere ? " \u00b7 this page" : ""}`,
      facts: [
        { label: "Address", value: address },
        stateOf(server),
        ...(cluster === undefined
          ? report === undefined || problem !== undefined ? [] : [{
            label: "Applied",
            value: "has not opened this cluster",
          }]
          : [
            ...(problem === undefined
              ? [
                roleOf(cluster, report?.isOnDuty),
                appliedOf(cluster, newest),
                ...hashOf(cluster, others),
              ]
              : [{
                label: "Applied",
                value: `#${cluster.appliedIndex} at its last answer`,
              }]),
            ...(cluster.code === undefined
              ? []
              : [{ label: "Code", value: cluster.code }]),
          ]),
        ...(report === undefined || problem !== undefined ? [] : [{
          label: "Clients",
          value: `${countText(report.clientCount, "client")}${
            isHere ? ", this page among them" : ""
          }`,
        }]),
        ...(memory === undefined || problem !== undefined ? [] : [{
          label: "Memory",
          value: `${sizeText(memory.rss)}, heap ${sizeText(memory.heap)}`,
        }]),
      ],
    };
  });
}

/** Panel of all servers on one log. */
export class ServersPanel implements Panel {
  readonly element: HTMLElement;
  readonly #servers: readonly SeenServer[];
  readonly #own: OwnReplica | undefined;
  readonly #cards = new Cards();

  /** Creates the panel of servers, of which the replica of this page uses one. */
  constructor(servers: readonly SeenServer[], own: OwnReplica | undefined) {
    this.#servers = servers;
    this.#own = own;
    this.element = h("div", { className: "panel" }, this.#cards.element);
  }

  show(): void {
    this.#cards.show(serversCards(this.#servers, this.#own));
  }
}
