/**
 * Boards that were open in this browser.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { slugOf } from "./names.ts";

/** Boards that were open here, the newest first. */
export function recentBoards(): string[] {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem("boards") ?? "[]");
    return Array.isArray(stored)
      ? stored.map((name) => slugOf(`${name}`)).filter((name) => name !== "")
      : [];
  } catch {
    return [];
  }
}

/** Most boards of which a browser remembers that they were open. */
const RECENT_MAX = 8;

/** Remembers that a board was open here. */
export function rememberBoard(board: string): void {
  const others = recentBoards().filter((name) => name !== board);
  const names = [board, ...others].slice(0, RECENT_MAX);
  try {
    localStorage.setItem("boards", JSON.stringify(names));
  } catch {
    // Storage is full, or refused; a link still opens the board.
  }
}
