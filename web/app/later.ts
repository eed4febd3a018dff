/**
 * Parts of the page that a person needs once they use it, in one file.
 *
 * This module runs in a browser.
 *
 * @module
 */

export { BoardMoves } from "./board_moves.ts";
export { openCard, openDialog, openList } from "./dialogs.ts";
export { dragCards } from "./drag.ts";
export { openMenu, openShare } from "./open_parts.ts";
export { RefusedEdits } from "./refused_edits.ts";
export { saveBoard } from "./save_board.ts";
export { badDay, messageOf } from "./trouble.ts";
