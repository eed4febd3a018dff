/**
 * Parts of the page that a person opens: its menu, the link to share, the inspector,
 * and files that were saved.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { openPart, type PageParts } from "./dialogs.ts";
import type { Messages } from "./messages.ts";
import { linkTo, type Place } from "./names.ts";
import { saveBoard } from "./save_board.ts";

/** Opens everything that concerns the whole board. */
export function openMenu(parts: PageParts): void {
  const { device, place } = parts;
  openPart(
    "Board",
    () => import("./menu.ts"),
    ({ fillMenu }, dialog) =>
      fillMenu(dialog, parts, {
        save: () => saveBoard(device, place.board),
        load: async (files) => {
          const { loadFiles } = await import("./import.ts");
          await loadFiles(files, parts);
        },
        inspect: () => openInspector(parts),
      }),
  );
}

/** Opens the link to a board. */
export function openShare(place: Place, messages: Messages): void {
  const link = linkTo({ ...place, device: "here", isTwo: false });
  const { href } = new URL(link, location.href);
  openPart(
    "Share this board",
    () => import("./share.ts"),
    ({ fillShare }, dialog) => fillShare(dialog, href, messages),
    href,
  );
}

/** Opens the inspector of a replica. */
function openInspector(parts: PageParts): void {
  openPart(
    "Inspector",
    () => import("./inspect.ts"),
    ({ fillInspector }, dialog) => fillInspector(dialog, parts),
  );
}
