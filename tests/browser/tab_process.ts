/**
 * Processes of the tabs of a browser, which a test kills or stops by their ids.
 *
 * This module needs Deno.
 *
 * @module
 */

import { type Browser, descendants, type Page } from "./browser.ts";

/** Time for which a page works, so that its process is found, in milliseconds. */
const WORK_MS = 400;

/** Processor time of a process so far, in ticks of the kernel; 0 if it has ended. */
function ticksOf(pid: number): number {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(fields[11]) + Number(fields[12]);
  } catch {
    return 0;
  }
}

/** Id of the process that runs a page: the browser's process that works while the page does. Several pages may share it. */
export async function processOf(browser: Browser, page: Page): Promise<number> {
  const pids = descendants(browser.pid);
  const before = new Map(pids.map((pid) => [pid, ticksOf(pid)]));
  await page.evaluate(
    `(() => {
      const end = performance.now() + ${WORK_MS};
      while (performance.now() < end);
    })()`,
    100 * WORK_MS,
  );
  const worked = (pid: number): number => ticksOf(pid) - before.get(pid)!;
  return pids.reduce((most, pid) => worked(pid) > worked(most) ? pid : most);
}

/** Tabs, of some, whose page runs. */
export async function answering<T extends { readonly page: Page }>(
  tabs: readonly T[],
  timeoutMs = 3_000,
): Promise<T[]> {
  const isAlive = await Promise.all(
    tabs.map(({ page }) =>
      page.evaluate("typeof page", timeoutMs).then(
        (type) => type === "object",
        () => false,
      )
    ),
  );
  return tabs.filter((_, i) => isAlive[i]);
}
