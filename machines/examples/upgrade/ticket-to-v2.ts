/** How a ticket that was created with ticket.ts goes on with ticket-v2.ts. */
import type { UpgradeContext, UpgradeState } from "@statebacked/machine";
import type { Context as Old } from "./ticket";
import type { Context as New } from "./ticket-v2";

/**
 * Where a state has gone: asked for each leaf that is active, or that a history state remembers.
 * The context is that of before.
 */
export const upgradeState: UpgradeState<Old> = (path) =>
  path[0] === "closed" ? path : ["active", ...path];

/** The context to go on with. */
export const upgradeContext: UpgradeContext<Old, New> = (_oldPaths, _newPaths, context) => ({
  public: {
    subject: context.subject,
    answers: context.public.answers,
    priority: "normal",
  },
});
