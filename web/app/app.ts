/**
 * The page: a board that works with and without a network, alone or as two devices
 * side by side.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { showBoard } from "./board_page.ts";
import { placeOf } from "./names.ts";
import { recentBoards } from "./recent.ts";

const place = placeOf(location.hash, recentBoards()[0]);
if (place.isTwo) {
  import("./two.ts").then(
    ({ showTwo }) => showTwo(place),
    // Not loaded yet, and no network: one device is enough.
    () => showBoard({ ...place, isTwo: false }),
  );
} else void showBoard(place);

// Links to boards differ in their fragments only.
addEventListener("hashchange", () => location.reload());
navigator.serviceWorker?.register("worker.js").catch(() => {
  // Without it the page opens only where there is a network.
});
// Once the visit is no short one, everything is made ready for a time without a network.
setTimeout(
  () => navigator.serviceWorker?.controller?.postMessage("keep the rest"),
  20_000,
);
