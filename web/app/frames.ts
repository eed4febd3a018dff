/**
 * Frames of the page: what has changed in a moment is drawn together.
 *
 * This module runs in a browser.
 *
 * @module
 */

/** Milliseconds after which a page that draws no frames is drawn all the same. */
const DRAW_MS_MAX = 100;

/** Rest after a drawing, as a multiple of the time that its frame took: on a slow device, 95 % of the frames are left to the person. */
const REST = 20;

/** Longest rest after a drawing, in milliseconds. */
const REST_MS_MAX = 600;

/** Time of a frame that needs no rest, in milliseconds. */
const FRAME_MS = 8;

/** Draws parts of the page, each once a frame for all its changes. */
export class Frames {
  readonly #isAwaited: () => boolean;
  readonly #waiting = new Set<() => void>();
  #isScheduled = false;
  #restUntil = 0;
  #resting: ReturnType<typeof setTimeout> | undefined;

  /** Frames of a page; `isAwaited` is true while the person waits to see an edit. */
  constructor(isAwaited: () => boolean) {
    this.#isAwaited = isAwaited;
  }

  /** Has a part drawn; on a slow device after a rest, together with later changes. */
  request(draw: () => void): void {
    this.#waiting.add(draw);
    const rest = this.#restUntil - performance.now();
    if (rest <= 0 || this.#isAwaited()) this.#schedule();
    else this.#resting ??= setTimeout(() => this.#schedule(), rest);
  }

  /** Has a part drawn in the next frame. */
  requestNow(draw: () => void): void {
    this.#waiting.add(draw);
    this.#schedule();
  }

  #schedule(): void {
    clearTimeout(this.#resting);
    this.#resting = undefined;
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const draw = (): void => {
      if (!this.#isScheduled) return;
      clearTimeout(timer);
      this.#isScheduled = false;
      this.#draw();
    };
    // A hidden page draws no frames.
    const timer = setTimeout(draw, DRAW_MS_MAX);
    requestAnimationFrame(draw);
  }

  #draw(): void {
    const begun = performance.now();
    const parts = [...this.#waiting];
    this.#waiting.clear();
    for (const draw of parts) draw();
    // Layout and paint of the frame come before it.
    setTimeout(() => {
      const now = performance.now();
      const took = now - begun;
      if (took < FRAME_MS) return;
      this.#restUntil = now + Math.min(took * REST, REST_MS_MAX);
    });
  }
}
