/**
 * Progress bar of the command line.
 *
 * This module needs Deno.
 *
 * @module
 */

import { SingleBar } from "../deps/cli_progress.ts";
import { bytes, type Progress } from "./operations.ts";

/** Running time of a command after which its bar is shown, in milliseconds. */
const APPEARS_AFTER_MS = 1_000;

/** Progress bar on standard error, shown on a terminal for a command that takes longer than a second. */
export class ProgressBar {
  readonly #shown = Deno.stderr.isTerminal();
  readonly #from = performance.now();
  #bar: SingleBar | undefined;

  /** Shows the progress of the command. */
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

  /** Removes the bar from the terminal. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}
