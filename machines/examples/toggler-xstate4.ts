/**
 * The toggler again, for XState 4. Both versions of XState run side by side, and an instance
 * behaves the same whichever its machine uses.
 *
 *   create   {"slug": "hall-light"}
 *   send     {"event": {"type": "toggle"}}
 */
import { assign, createMachine } from "npm:xstate@4";
import type { AllowRead, AllowWrite } from "@statebacked/machine";

type Context = {
  // Clients see `context.public` and nothing else of the context.
  public: { toggleCount: number };
};

export default createMachine(
  {
    id: "toggler",
    schema: {
      context: {} as Context,
      events: {} as { type: "toggle" },
    },
    predictableActionArguments: true,
    context: { public: { toggleCount: 0 } },
    initial: "off",
    states: {
      off: { on: { toggle: { target: "on", actions: "count" } } },
      on: { on: { toggle: { target: "off", actions: "count" } } },
    },
  },
  {
    actions: {
      count: assign({
        public: (context) => ({ toggleCount: context.public.toggleCount + 1 }),
      }),
    },
  },
);

// Whoever has a token for this org may look.
export const allowRead: AllowRead<Context> = () => true;

// Creating and switching need a person: the `sub` of the token's authContext.
export const allowWrite: AllowWrite<Context> = ({ authContext }) => authContext.sub !== undefined;
