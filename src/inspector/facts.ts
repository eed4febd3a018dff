/**
 * State of a replica in words: cards of labels and values.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { RemoteStatus } from "../sync/client/status.ts";
import { INSPECTOR_TABS_MAX } from "../limits.ts";
import type { OtherTab, TabState } from "../tabs/tab_state.ts";
import type { Comparison, DeviceReport } from "./device_model.ts";
import {
  agoText,
  countText,
  durationText,
  errorText,
  hashText,
  sizeText,
} from "./show.ts";

/** Line of a card. */
export interface Fact {
  readonly label: string;
  readonly value: string;
  /** Set for a value that a person should look at. */
  readonly tone?: "good" | "warn" | "bad";
}

/** Facts about one thing. */
export interface Card {
  readonly title: string;
  readonly facts: readonly Fact[];
}

/** State of a tab in words. */
const TABS: Readonly<Record<TabState, string>> = {
  joining: "joins the others",
  following: "follows the leading tab",
  orphaned: "has lost the leading tab",
  opening: "takes the lead",
  leading: "leads",
  gone: "has left the others",
  cached: "is in the back/forward cache",
  outdated: "runs older code: reload it",
  memory: "shares nothing, keeps nothing",
};

function entry(index: number): string {
  return `#${index.toLocaleString("en")}`;
}

function logCard({ replica, status, snapshots }: DeviceReport): Card {
  const { appliedIndex, logInfo } = replica;
  const facts: Fact[] = [{ label: "Applied", value: entry(appliedIndex) }];
  if (logInfo !== undefined) {
    const { first, last, committed, bytes = 0 } = logInfo;
    const behind = committed - appliedIndex;
    facts.push(
      {
        label: "Kept here",
        value: first > last
          ? "no entries"
          : `${entry(first)} to ${entry(last)}${
            bytes > 0 ? `, ${sizeText(bytes)}` : ""
          }`,
      },
      {
        label: "Committed",
        value: behind > 0
          ? `${entry(committed)}, ${
            countText(behind, "entry", "entries")
          } ahead`
          : entry(Math.max(committed, appliedIndex)),
        ...(behind > 0 ? { tone: "warn" } : {}),
      },
    );
  }
  if (replica.storageError !== undefined) {
    facts.push({
      label: "Cannot be written",
      value: errorText(replica.storageError),
      tone: "bad",
    });
  }
  if (replica.skips.length > 0) {
    facts.push({
      label: "Skipped",
      value: countText(replica.skips.length, "entry", "entries"),
      tone: "warn",
    });
  }
  const [newest] = snapshots;
  facts.push({
    label: "Newest snapshot",
    value: newest === undefined
      ? "none here"
      : `${entry(newest.index)}, ${sizeText(newest.size)}`,
  });
  if (status.error !== undefined) {
    facts.push({
      label: "State",
      value: `${status.state}: ${errorText(status.error)}`,
      tone: "bad",
    });
  }
  facts.push({ label: "Cluster", value: `${replica.clusterID}` });
  return { title: "Log", facts };
}

function outboxCard({ pending, pendingCount, status }: DeviceReport): Card {
  const refused = pending.filter(({ state }) => state === "refused").length;
  const unknown = pending.filter(({ state }) => state === "unknown").length;
  const waiting = pendingCount - refused - unknown;
  return {
    title: "Outbox",
    facts: [
      {
        label: "Waiting",
        value: waiting === 0 ? "nothing" : countText(waiting, "edit"),
        ...(waiting > 0 ? { tone: "warn" } : {}),
      },
      ...(refused === 0 ? [] : [{
        label: "Refused",
        value: countText(refused, "edit"),
        tone: "bad" as const,
      }]),
      ...(unknown === 0 ? [] : [{
        label: "Outcome unknown",
        value: countText(unknown, "edit"),
        tone: "bad" as const,
      }]),
      ...(status.viewLag === undefined ? [] : [{
        label: "Not in the view yet",
        value: countText(status.viewLag, "edit"),
      }]),
    ],
  };
}

/** Result of a comparison of hashes in words. */
export function comparisonFacts(
  { index, here, replayed, trusted }: Comparison,
): Fact[] {
  const verdict = (other: bigint, equal: string, different: string): Fact =>
    other === here
      ? { label: `At ${entry(index)}`, value: equal, tone: "good" }
      : {
        label: `At ${entry(index)}`,
        value: `${different}: ${hashText(other)}`,
        tone: "bad",
      };
  return [
    trusted === undefined
      ? { label: "Server", value: "has no hash to compare with now" }
      : verdict(trusted, "equal on the server", "the server has another state"),
    replayed instanceof Error
      ? { label: "Replay", value: errorText(replayed) }
      : verdict(
        replayed,
        "equal after a replay of the log",
        "a replay of the log has another state",
      ),
  ];
}

/** Last comparison that replicas made by themselves, in words. */
function agreementFact(
  { agreement, connection }: DeviceReport,
): readonly Fact[] {
  if (agreement === undefined) {
    return connection === undefined ? [] : [{
      label: "Equal on the server",
      value: "not compared yet: press Compare hashes",
    }];
  }
  const { index, isTrusted, agoMs } = agreement;
  return [{
    label: isTrusted ? "Equal on the server" : "Equal on another replica",
    value: `at ${entry(index)}, ${agoText(agoMs)}`,
    tone: "good",
  }];
}

function hashCard(
  report: DeviceReport,
  comparison: Comparison | undefined,
): Card {
  const { hash } = report;
  return {
    title: "Hash",
    facts: [
      hash === undefined
        ? { label: "State", value: "this machine has no hash" }
        : { label: `At ${entry(hash.index)}`, value: hashText(hash.hash) },
      ...(comparison === undefined || report.agreement !== undefined
        ? agreementFact(report)
        : []),
      ...(comparison === undefined ? [] : comparisonFacts(comparison)),
    ],
  };
}

function storageCard({ storage }: DeviceReport): Card {
  if (storage === undefined) {
    return {
      title: "Storage",
      facts: [{ label: "Kept", value: "the browser does not say" }],
    };
  }
  const { isPersisted, used, quota } = storage;
  return {
    title: "Storage",
    facts: [
      isPersisted
        ? { label: "Kept", value: "until a person clears it", tone: "good" }
        : {
          label: "Kept",
          value: "while the browser has room",
          tone: "warn",
        },
      ...(used === undefined ? [] : [{
        label: "Used by this origin",
        value: quota === undefined
          ? sizeText(used)
          : `${sizeText(used)} of ${sizeText(quota)}`,
      }]),
    ],
  };
}

/** Card of a tab that follows: another one has the connection. */
function sharedConnectionCard({ addresses }: RemoteStatus): Card {
  return {
    title: "Connection",
    facts: [
      { label: "State", value: "through the leading tab" },
      ...addresses.map(({ url }) => ({ label: "Server", value: url })),
    ],
  };
}

function connectionCard(
  status: RemoteStatus,
  clusterID: bigint,
  isOnline: boolean,
): Card {
  const { state, reason, error, retryInMs, addresses } = status;
  const cluster = status.clusters.find((one) => one.clusterID === clusterID);
  return {
    title: "Connection",
    facts: [
      {
        label: "State",
        value: isOnline ? state : `${state}, switched off here`,
        tone: state === "live" ? "good" : "warn",
      },
      ...(reason === undefined && error === undefined ? [] : [{
        label: "Reason",
        value: error === undefined ? String(reason) : errorText(error),
      }]),
      ...(retryInMs === undefined
        ? []
        : [{ label: "Next try", value: `in ${durationText(retryInMs)}` }]),
      ...(cluster === undefined ? [] : [{
        label: "Received",
        value: `${entry(cluster.received)} of ${entry(cluster.last)}`,
      }]),
      ...addresses.map(({ url, reason }) => ({
        label: "Server",
        value: reason === undefined ? url : `${url} (${reason})`,
      })),
    ],
  };
}

/** Another tab in words. */
function otherTabFact(
  { state, code, sinceMs, isVisible }: OtherTab,
  at: number,
): Fact {
  return {
    label: `Other tab ${at + 1}`,
    value: [
      `${TABS[state]} for ${durationText(sinceMs)}`,
      `code ${code}`,
      ...(isVisible ? [] : ["hidden"]),
    ].join(", "),
    ...(state === "outdated" ? { tone: "bad" as const } : {}),
  };
}

/** State of a replica as cards. */
export function cardsOf(
  report: DeviceReport,
  comparison: Comparison | undefined,
  isOnline: boolean,
): readonly Card[] {
  const { connection, tabs, others, sessions, replica } = report;
  const isFollowing = tabs?.state === "following" || tabs?.state === "orphaned";
  const unacknowledged = sessions.reduce(
    (sum, one) => sum + one.unacknowledged,
    0,
  );
  return [
    logCard(report),
    outboxCard(report),
    ...(connection === undefined ? [] : [
      isFollowing
        ? sharedConnectionCard(connection)
        : connectionCard(connection, replica.clusterID, isOnline),
    ]),
    hashCard(report, comparison),
    ...(tabs === undefined ? [] : [{
      title: "Tabs",
      facts: [
        {
          label: "This tab",
          value: TABS[tabs.state],
          ...(tabs.state === "outdated" ? { tone: "bad" as const } : {}),
        },
        { label: "Changes of the lead", value: `${tabs.epoch}` },
        ...others.slice(0, INSPECTOR_TABS_MAX).map(otherTabFact),
        ...(others.length <= INSPECTOR_TABS_MAX ? [] : [{
          label: "And",
          value: countText(others.length - INSPECTOR_TABS_MAX, "more tab"),
        }]),
        ...(tabs.reason === undefined
          ? []
          : [{ label: "Reason", value: tabs.reason }]),
      ],
    }]),
    {
      title: "Sessions",
      facts: [
        { label: "Open", value: countText(sessions.length, "session") },
        {
          label: "Results kept",
          value: countText(unacknowledged, "command"),
        },
      ],
    },
    storageCard(report),
  ];
}
