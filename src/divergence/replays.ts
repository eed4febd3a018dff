/**
 * Replays of the log: loaded once replicas have diverged, an
 * `update()` threw, or an inspector asks for earlier states.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { explainDivergence } from "./explain.ts";
export { history } from "./replica_history.ts";
export { locateFailure, replay, replayFactory } from "./replay.ts";
