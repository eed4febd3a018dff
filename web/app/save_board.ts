/**
 * Files of what is on a board.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { Device } from "./device.ts";
import { h } from "./dom.ts";

/** Has the browser save a file. */
function save(name: string, content: Blob): void {
  const href = URL.createObjectURL(content);
  h("a", { download: name, href }).click();
  // The browser has to have begun.
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

/** Saves a board that is on a device as a snapshot another host can import, and the edits that were not sent. */
export async function saveBoard(
  { host, clusterID }: Pick<Device, "host" | "clusterID">,
  board: string,
): Promise<void> {
  const { snapshot, pending } = await host.exportData(clusterID);
  save(`${board}.snapshot`, await new Response(snapshot).blob());
  if (pending.length === 0) return;
  const edits = pending.map(({ id, state, cmd }) => ({
    id,
    state,
    cmd: btoa(String.fromCharCode(...cmd)),
  }));
  save(`${board}-edits.json`, new Blob([JSON.stringify(edits)]));
}
