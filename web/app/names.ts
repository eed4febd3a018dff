/**
 * Names of boards and devices, links to them, and how long texts may be.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Board that a visitor sees first. */
export const WELCOME = "welcome";

/** Distance of the log indexes at which devices and server compare their states. */
export const HASH_ENTRIES = 64;

/** Longest text of a card, in UTF-16 code units. */
export const TEXT_LENGTH_MAX = 2000;

/** Longest title of a list or a board, in UTF-16 code units. */
export const TITLE_LENGTH_MAX = 100;

/** Longest name of a board, in UTF-16 code units. */
const NAME_LENGTH_MAX = 60;

/** Name of a board as it is in links: small letters, digits and dashes; empty if nothing is left. */
export function slugOf(text: string): string {
  return text.normalize("NFC").toLowerCase()
    .replaceAll(/[^\p{L}\p{M}\p{N}]+/gu, "-")
    .replaceAll(/^-+/g, "").slice(0, NAME_LENGTH_MAX).replaceAll(/-+$/g, "");
}

/**
 * Id of the cluster that is a board: a hash of its name (FNV-1a), so that a link
 * with a name is all that devices and servers have to agree on.
 */
export function clusterOf(board: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (let i = 0; i < board.length; i++) {
    hash ^= BigInt(board.charCodeAt(i));
    hash = BigInt.asUintN(64, hash * 0x100000001b3n);
  }
  // Small ids are for clusters that are numbered by hand.
  return hash | 1n << 63n;
}

/** Part of a page that a link shows. */
export interface Place {
  /** Name of the board. */
  readonly board: string;
  /** Name of the device: `left` and `right` where two are side by side. */
  readonly device: string;
  /** True to show two devices side by side. */
  readonly isTwo: boolean;
}

/** Decodes the name of a board in a link. */
function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/**
 * Reads the place from the fragment of a link: `#board`, `#board:two` for two devices
 * side by side, `#board:left` for one of them; `#:last` is the last board that was
 * open here alone. The fragment is not sent: one page, cached once, shows every board.
 */
export function placeOf(fragment: string, last: string | undefined): Place {
  const [name = "", part] = fragment.replace(/^#/, "").split(":");
  const board = slugOf(decoded(name)) ||
    (part === "last" && last !== undefined ? slugOf(last) : "");
  const isFrame = part === "left" || part === "right";
  return {
    board: board || WELCOME,
    device: isFrame ? part : "here",
    isTwo: part === "two" || board === "",
  };
}

/** Link to a place, relative to the page. */
export function linkTo({ board, device, isTwo }: Place): string {
  const part = isTwo ? ":two" : device === "here" ? "" : `:${device}`;
  return `./#${encodeURIComponent(board)}${part}`;
}

/** Name of the channel on which the log of a board is told. */
export function channelOf(board: string): string {
  return `sampan-feed ${board}`;
}
