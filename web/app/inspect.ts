/**
 * Inspector of a board, loaded when it is first opened.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { inspect, type MachineView } from "../../src/inspector/mod.ts";
import type { BoardReplica, Device } from "./device.ts";
import { peerURLs } from "./peers.ts";

/** Names of the machine itself, on which the demo server lets itself be inspected. */
const LOCAL = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** Shows the replica of a board in a dialog. The machine is given: this file has a copy of the library of its own. */
export function fillInspector(
  dialog: HTMLDialogElement,
  { host, logDB, tabs, plug }: Device,
  replica: BoardReplica,
  machine: MachineView,
  startOver: () => Promise<void>,
): void {
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
