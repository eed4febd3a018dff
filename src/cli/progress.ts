/**
 * The progress bar of a command that takes longer than a second, on a terminal.
 *
 * This module needs Deno.
 *
 * @module
 */

import { SingleBar } from "../deps/cli_progress.ts";
import { bytes, type Progress } from "./operations.ts";

/** Running time of a command after which its bar appears, in milliseconds. */
const APPEARS_AFTER_MS = 1_000;

/** A bar on standard error; nothing where that is not a terminal. */
export class ProgressBar {
  readonly #shown = Deno.stderr.isTerminal();
  readonly #from = performance.now();
  #bar: SingleBar | undefined;

  /** Shows how far the command is. */
  update({ done, total }: Progress): void {
    if (!this.#shown || performance.now() - this.#from < APPEARS_AFTER_MS) {
      return;
    }
    const text = { left: `${bytes(done)} of ${bytes(total)}` };
    if (this.#bar === undefined) {
      this.#bar = new SingleBar({
        format: "{bar} {percentage} %  {left}, {eta_formatted} left",
        barCompleteChar: "█",
        barIncompleteChar: "░",
        clearOnComplete: true,
        hideCursor: true,
      });
      this.#bar.start(total, done, text);
    }
    this.#bar.setTotal(total);
    this.#bar.update(done, text);
  }

  /** Takes the bar away. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}
