/**
 * Loading of the parts that a person needs once they use the page: until then, a
 * visit transfers what shows the board, and nothing else.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { PendingEdit } from "../../src/typed/mod.ts";

/** Parts that are loaded later. */
export type Later = typeof import("./later.ts");

let loading: Promise<Later> | undefined;

/** The parts, once they are loaded. */
export let later: Later | undefined;

/** Loads the parts, once. */
export function loadLater(): Promise<Later> {
  loading ??= import("./later.ts").then((parts) => later = parts, (error) => {
    loading = undefined;
    throw new Error(
      `This part of the page is not on this device yet (${error.message}): use it once while you are online`,
      { cause: error },
    );
  });
  return loading;
}

/** Resolves with the parts once they are loaded, which begins at the first sign that a person uses the page. */
export function firstUse(): Promise<Later> {
  return new Promise((resolve) => {
    const use = (): void => {
      loadLater().then(resolve, () => {
        // Tried again at the next sign.
      });
    };
    for (const sign of ["pointerdown", "keydown", "focusin"]) {
      addEventListener(sign, use, { passive: true });
    }
    document.documentElement.addEventListener("pointerenter", use);
  });
}

/** True if an edit was refused, or its outcome cannot be known. */
export function isRefused({ state }: Pick<PendingEdit, "state">): boolean {
  return state === "refused" || state === "unknown";
}
