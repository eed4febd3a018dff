/**
 * Page in a language that `Intl` refuses, with a chart of the inspector.
 *
 * This module runs in a browser.
 *
 * @module
 */

Object.defineProperty(Navigator.prototype, "language", {
  get: () => "C",
  configurable: true,
});

const loading = import("../../src/inspector/chart.ts");

/** Draws a chart; returns how many canvases it has, its text, and the language that the page has then. */
export async function draw(): Promise<[number, string, string]> {
  const { Chart } = await loading;
  const chart = new Chart("Entries", [
    { name: "a second", colour: "--one", format: (value) => `${value}` },
  ]);
  document.body.append(chart.element);
  chart.show([[0, 1], [1000, 2]]);
  // Drawn once its width is known.
  for (let i = 0; i < 100; i++) {
    if (chart.element.querySelector("canvas") !== null) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { length } = chart.element.querySelectorAll("canvas");
  return [length, chart.element.innerText, navigator.language];
}
