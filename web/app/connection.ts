/**
 * The connection in words: where it stands. What is wrong and what can be done is
 * told by code that is loaded with the first trouble.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { RemoteStatus } from "../../src/sync/client/mod.ts";
import type { Device } from "./device.ts";
import { h, setText } from "./dom.ts";
import { later, loadLater } from "./lazy.ts";
import { type Messages, RELOAD } from "./messages.ts";
import type { WaysOut } from "./trouble.ts";

const WORDS: Readonly<Record<RemoteStatus["state"] | "following", string>> = {
  "following": "Connected by another tab",
  "offline": "Offline",
  "connecting": "Connecting",
  "needs-auth": "Signed out",
  "forbidden": "No access",
  "failed": "Server failed",
  "catching up": "Catching up",
  "not accepting": "Server is full",
  "blocked": "Stopped",
  "live": "Live",
};

/** Progress of catching up, in words; empty if it is not known. */
function progressOf({ clusters: [cluster] }: RemoteStatus): string {
  if (cluster === undefined) return "";
  const { snapshot, received, last } = cluster;
  const [done, all] = snapshot === undefined
    ? [received, last]
    : [snapshot.received, snapshot.size];
  return all === 0 || done >= all ? "" : ` ${Math.floor(done / all * 100)} %`;
}

/** Milliseconds that the words for a trouble may take to load, before the client's own are shown. */
const LOAD_MS_MAX = 1_000;

/** Shows where a device stands, and keeps it up to date. */
export function showConnection(
  { logDB, plug, tabs }: Device,
  messages: Messages,
  out: WaysOut,
): HTMLElement {
  const text = h("span");
  const pill = h("p", { id: "state" }, text);
  let said = "";
  let isLate = false;
  /** Trouble for which the words were loaded. */
  let tried: string | undefined;
  const showLate = (): void => {
    isLate = true;
    show();
  };
  const show = (): void => {
    const { status } = logDB;
    const isFollowing = tabs.status.state === "following" ||
      tabs.status.state === "orphaned";
    const state = isFollowing ? "following" : status.state;
    pill.dataset["state"] = plug.isIn ? state : "unplugged";
    const words = !plug.isIn
      ? "Unplugged"
      : status.reason?.code === "cut-off"
      ? "Server cut off"
      : WORDS[state];
    const progress = plug.isIn && state === "catching up"
      ? progressOf(status)
      : "";
    setText(text, words + progress);
    const { reason } = status;
    if (words !== said) messages.say(words);
    said = words;
    const trouble = plug.isIn ? reason?.code : "unplugged";
    if (later === undefined && trouble !== undefined && trouble !== tried) {
      // There may be no network.
      loadLater().then(show, showLate);
      setTimeout(showLate, LOAD_MS_MAX);
    }
    tried = trouble;
    // One message for the same remedy.
    if (reason?.code === "newer-code") messages.set("code", undefined);
    messages.set(
      "connection",
      later === undefined
        ? isLate && plug.isIn && reason !== undefined
          ? { tone: "warn", text: reason.message, remedies: [RELOAD] }
          : undefined
        : later.messageOf(status, plug.isIn, () => logDB.reconnect(), () => {
          plug.isIn = true;
        }, out),
    );
  };
  plug.addEventListener("change", () => {
    if (plug.isIn) logDB.reconnect();
    show();
  });
  logDB.watch(show);
  tabs.watch(show);
  // The time of the next try comes closer while nothing else happens.
  setInterval(show, 1_000);
  show();
  return pill;
}
