/**
 * Replays of the log: loaded once replicas have diverged, or an
 * `update()` threw.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { explainDivergence } from "./explain.ts";
export { locateFailure, replay, replayFactory } from "./replay.ts";
