/**
 * The npm package `uplot`: charts of time series on a canvas.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { default as uPlot } from "npm:uplot@1.6.32";
