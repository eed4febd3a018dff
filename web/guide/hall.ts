/** Page's half of a host in a worker: calls with answers, and what the page shows. */

import type { FromHost, Hall, ToHost } from "./hall_host.ts";
import type { SeatCommand } from "./seats.ts";

/** Connection of a page to its host in a worker. */
export interface HallHost {
  /** Resolves once the command is stored on this device; rejects if it cannot be. */
  submit(command: SeatCommand): Promise<void>;
  /** Forgets a refused command. */
  dismiss(id: number): void;
  /** Resolves once everything is written and the worker has ended. */
  stop(): Promise<void>;
}

/**
 * Starts the worker. `show` is called with what the page has to show, after each
 * change; `failed` if the host could not start, or the worker has died.
 */
export function openHall(
  start: () => Worker,
  show: (hall: Hall) => void,
  failed: (reason: string) => void,
): HallHost {
  const worker = start();
  const calls = new Map<number, (error: string | undefined) => void>();
  let made = 0;
  let stopped = (): void => {};
  const send = (message: ToHost): void => worker.postMessage(message);
  const end = (reason: string): void => {
    worker.terminate();
    for (const answered of calls.values()) answered(reason);
    calls.clear();
  };
  worker.onmessage = ({ data }: MessageEvent<FromHost>): void => {
    switch (data.kind) {
      case "hall":
        return show(data.hall);
      case "stored":
        calls.get(data.call)?.(data.error);
        return void calls.delete(data.call);
      case "stopped":
        end("The host has stopped");
        return stopped();
      case "failed":
        end(data.error);
        return failed(data.error);
    }
  };
  worker.onerror = ({ message }): void => {
    end(message);
    failed(message);
  };
  return {
    submit: (command) =>
      new Promise((resolve, reject) => {
        const call = ++made;
        calls.set(call, (error) => {
          if (error === undefined) resolve();
          else reject(new Error(error));
        });
        send({ kind: "submit", call, command });
      }),
    dismiss: (id) => send({ kind: "dismiss", id }),
    stop: () =>
      new Promise((resolve) => {
        stopped = resolve;
        send({ kind: "stop" });
      }),
  };
}
