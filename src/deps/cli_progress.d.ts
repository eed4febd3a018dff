/** Options of a bar, of those the package has. */
export interface BarOptions {
  readonly format?: string;
  readonly barCompleteChar?: string;
  readonly barIncompleteChar?: string;
  readonly clearOnComplete?: boolean;
  readonly hideCursor?: boolean;
}

/** One bar, on standard error. */
export class SingleBar {
  constructor(options: BarOptions);
  start(total: number, start: number, payload?: object): void;
  setTotal(total: number): void;
  update(current: number, payload?: object): void;
  stop(): void;
}
