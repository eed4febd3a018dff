/**
 * Inspector of a board, loaded when it is first opened.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { inspect } from "../../src/inspector/mod.ts";
import type { PageParts } from "./dialogs.ts";
import { peerURLs } from "./peers.ts";

/** Names of the machine itself, on which the demo server lets itself be inspected. */
const LOCAL = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** Shows the replica of a board in a dialog. */
export function fillInspector(
  dialog: HTMLDialogElement,
  { device, replica, machine, startOver }: PageParts,
): void {
  const { host, logDB, tabs, plug } = device;
  dialog.className = "wide";
  dialog.append(inspect({
    host,
    replica,
    machine,
    connection: logDB,
    tabs,
    network: {
      get isOnline(): boolean {
        return plug.isIn;
      },
      set isOnline(isOnline: boolean) {
        plug.isIn = isOnline;
      },
    },
    startOver,
    ...(LOCAL.test(location.hostname)
      ? {
        source: new URL("inspector", location.href).href,
        peers: peerURLs().map((at) => new URL("inspector", at).href),
      }
      : {}),
  }));
}
