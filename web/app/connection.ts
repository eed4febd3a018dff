/**
 * The connection in words: where it stands, when it tries again, what is wrong and
 * what can be done.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { RemoteStatus } from "../../src/sync/client/mod.ts";
import type { Device } from "./device.ts";
import { h, setText } from "./dom.ts";
import type { Message, Messages, Remedy } from "./messages.ts";

/** Ways out of a state from which no waiting helps. */
export interface WaysOut {
  /** Saves the board of this device, and what waits to be sent. */
  readonly save: () => Promise<void>;
  /** Takes the server's board instead of the one that is here; what waits to be sent is kept. */
  readonly startOver: () => Promise<void>;
}

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

/** Reasons that a person cannot mend, in words for everyone; of the others, the client's message says more. */
const TROUBLES: Readonly<Record<string, string>> = {
  "unreachable": "The server does not answer",
  "no-answer": "The server does not answer",
  "gateway": "The server is down",
  "stopping": "The server is restarting",
  "lost": "The connection was lost",
  "cut-off": "The server has lost the others",
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

/** Message about a status; undefined if all is well, or only needs time. */
export function messageOf(
  status: RemoteStatus,
  isPluggedIn: boolean,
  tryNow: Remedy[1],
  plugIn: Remedy[1],
  { save, startOver }: WaysOut,
): Message | undefined {
  const { reason, retryInMs } = status;
  if (!isPluggedIn) {
    return {
      tone: "info",
      text:
        "The plug is pulled. Go on working: edits are kept on this device, and sent once it is in again.",
      remedies: [["Plug in", plugIn]],
    };
  }
  if (reason === undefined) return undefined;
  switch (reason.code) {
    case "other-history":
      return {
        tone: "bad",
        text:
          "The server has another history than this device: its data was deleted, or an older backup was restored. Nothing is lost here, and nothing is sent. Take the server’s board; edits that wait are kept, and sent then.",
        remedies: [
          ["Save what is here", save],
          ["Take the server’s board", startOver],
        ],
      };
    case "newer-code":
      return {
        tone: "warn",
        text:
          "A newer version of this page has edited the board in a way that this one cannot show. Reload to get it; edits that wait are kept, and those made now are shown then.",
        remedies: [["Reload", (): void => location.reload()]],
      };
    case "replica-failed":
      return {
        tone: "bad",
        text: `The board on this device has failed: ${
          reason.message.replace(/\.$/, "")
        }. Edits that wait are kept.`,
        remedies: [
          ["Save what is here", save],
          ["Reload", (): void => location.reload()],
          ["Take the server’s board", startOver],
        ],
      };
    default:
      return {
        tone: "warn",
        text: `${
          TROUBLES[reason.code] ?? reason.message.replace(/\.$/, "")
        }. Edits are kept on this device, and sent later.`,
        countdown: retryInMs === undefined
          ? ""
          : `Next try in ${Math.ceil(retryInMs / 1000)} s.`,
        ...(retryInMs === undefined
          ? {}
          : { remedies: [["Now", tryNow]] as const }),
      };
  }
}

/** Shows where a device stands, and keeps it up to date. */
export function showConnection(
  { logDB, plug, tabs }: Device,
  messages: Messages,
  out: WaysOut,
): HTMLElement {
  const text = h("span");
  const pill = h("p", { id: "state" }, text);
  let said = "";
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
    if (words !== said) messages.say(words);
    said = words;
    // One message for the same remedy.
    if (status.reason?.code === "newer-code") messages.set("code", undefined);
    messages.set(
      "connection",
      messageOf(status, plug.isIn, () => logDB.reconnect(), () => {
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
