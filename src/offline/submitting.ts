/**
 * What an outbox brings to the replica that submits: the way of its commands
 * into the log, and the view that shows them before they are there. A host
 * imports no more than the types: a page without an outbox carries none of it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Submitting } from "./outbox.ts";
import type { SessionState } from "../nodehost/session.ts";
import {
  type Item,
  Submissions,
  type SubmissionsOptions,
} from "./submissions.ts";
import { OptimisticView, type ViewOptions } from "./view.ts";

/** What both take of their replica. */
export interface SubmittingParts
  extends
    SubmissionsOptions,
    Omit<ViewOptions<SessionState>, "pending" | "onPoison"> {
  /** Called when what is pending has changed, and the view with it. */
  readonly changed: () => void;
}

/** What a replica has of them. */
export interface Submitted {
  readonly submissions: Submissions;
  readonly view: OptimisticView<SessionState>;
}

/** As a host calls it. */
export type MakeSubmitted = (parts: SubmittingParts) => Submitted;

function makeSubmitted(parts: SubmittingParts): Submitted {
  const submissions = new Submissions(parts);
  const view = new OptimisticView({
    ...parts,
    pending: submissions,
    onPoison: (command, error) =>
      submissions.refuse(command as Item, `${error}`),
  });
  submissions.onChange(() => {
    view.changed();
    parts.changed();
  });
  return { submissions, view };
}

/** What every outbox has as `submitting`. */
export const submitting: Submitting = makeSubmitted;
