/**
 * The first module of every example's page: shows what goes wrong, and has the
 * browser keep the page for when there is no network.
 *
 * This module runs in a browser.
 *
 * @module
 */

function report(error: unknown): void {
  const problem = document.getElementById("problem")!;
  problem.textContent = error instanceof Error ? error.message : String(error);
}

addEventListener("error", ({ error, message }) => report(error ?? message));
addEventListener("unhandledrejection", ({ reason }) => report(reason));

navigator.serviceWorker?.register("worker.js").catch(report);
