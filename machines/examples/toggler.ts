/**
 * The smallest useful machine: a switch that counts how often it was thrown.
 *
 *   create   {"slug": "hall-light"}
 *   send     {"event": {"type": "toggle"}}
 */
import { assign, setup } from "xstate";
import type { AllowRead, AllowWrite } from "@statebacked/machine";

type Context = {
  // Clients see `context.public` and nothing else of the context.
  public: { toggleCount: number };
};

export default setup({
  types: {
    context: {} as Context,
    events: {} as { type: "toggle" },
  },
  actions: {
    count: assign({
      public: ({ context }) => ({ toggleCount: context.public.toggleCount + 1 }),
    }),
  },
}).createMachine({
  id: "toggler",
  context: { public: { toggleCount: 0 } },
  initial: "off",
  states: {
    off: { on: { toggle: { target: "on", actions: "count" } } },
    on: { on: { toggle: { target: "off", actions: "count" } } },
  },
});

// Whoever has a token for this org may look.
export const allowRead: AllowRead<Context> = () => true;

// Creating and switching need a person: the `sub` of the token's authContext.
export const allowWrite: AllowWrite<Context> = ({ authContext }) => authContext.sub !== undefined;
