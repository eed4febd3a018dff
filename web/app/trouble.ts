/**
 * Messages of a bad day, with what can be done. Loaded with the first
 * trouble, or before it, with the first use of the page.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { RemoteStatus } from "../../src/sync/client/mod.ts";
import { type Message, RELOAD, type Remedy } from "./messages.ts";

/** Ways out of a state from which no waiting helps. */
export interface WaysOut {
  /** Saves the board of this device, and what waits to be sent. */
  readonly save: () => Promise<void>;
  /** Takes the server's board instead of the one that is here; what waits to be sent is kept. */
  readonly startOver: () => Promise<void>;
}

/** Reasons that a person cannot mend, in words for everyone; of the others, the client's message says more. */
const TROUBLES: Readonly<Record<string, string>> = {
  "unreachable": "The server does not answer",
  "no-answer": "The server does not answer",
  "gateway": "The server is down",
  "stopping": "The server is restarting",
  "lost": "The connection was lost",
  "cut-off": "The server has lost the others",
};

/** Message about a status; undefined if all is well, or only needs time. */
export function messageOf(
  status: Pick<RemoteStatus, "reason" | "retryInMs">,
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
        remedies: [RELOAD],
      };
    case "replica-failed":
      return {
        tone: "bad",
        text: `The board on this device has failed: ${
          reason.message.replace(/\.$/, "")
        }. Edits that wait are kept.`,
        remedies: [
          ["Save what is here", save],
          RELOAD,
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

/** Bad days of a page beside those of its connection: another tab has newer code, nothing is stored, newer code of the page is here, no room is left, the browser has removed what was stored, the board could not be opened. */
export type BadDay = "tab" | "storage" | "code" | "full" | "purged" | "start";

/** Message about a bad day; `detail` says more of it. */
export function badDay(
  day: BadDay,
  detail: string,
  dismiss: () => void,
  save: (() => Promise<void>) | undefined,
): Message {
  const because = detail === "" ? "" : ` ${detail}`;
  const saving: readonly Remedy[] = save === undefined
    ? []
    : [["Save what is here", save]];
  switch (day) {
    case "tab":
      return {
        tone: "warn",
        text:
          `Another tab runs newer code.${because} Reload to get it; edits that wait are kept.`,
        remedies: [RELOAD],
      };
    case "storage":
      return {
        tone: "warn",
        text:
          `Nothing is kept on this device: the board works while this tab is open and connected.${because}`,
        remedies: [["I see", dismiss]],
      };
    case "code":
      return {
        tone: "info",
        text: `${detail}. Reload to get it; edits that wait are kept.`,
        remedies: [RELOAD],
      };
    case "full":
      return {
        tone: "bad",
        text:
          "This device has no room left, so the last edit is not kept. Free some space, and edit again; what was kept before is safe.",
        remedies: [...saving, ["Dismiss", dismiss]],
      };
    case "purged":
      return {
        tone: "warn",
        text:
          `The browser has cleared what this page kept. ${detail}; what was not sent is lost.`,
        remedies: [["I see", dismiss]],
      };
    case "start":
      return {
        tone: "bad",
        text: `The board cannot be opened: ${detail}`,
        remedies: [["Try again", RELOAD[1]], ...saving],
      };
  }
}
