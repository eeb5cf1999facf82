// A promise that may fail, with a limited number of tries.
import { assign, fromPromise, setup } from "npm:xstate@5";

export default setup({
  types: { context: {} as { tries: number; data?: unknown } },
  actors: { loadUser: fromPromise(async () => ({ name: "Ada" })) },
  guards: { canTryAgain: ({ context }) => context.tries < 3 },
  delays: { backoff: ({ context }) => 1000 * 2 ** context.tries },
}).createMachine({
  id: "fetch",
  context: { tries: 0 },
  initial: "idle",
  states: {
    idle: { on: { FETCH: "loading" } },
    loading: {
      entry: assign({ tries: ({ context }) => context.tries + 1 }),
      invoke: {
        id: "user",
        src: "loadUser",
        onDone: { target: "success", actions: assign({ data: ({ event }) => event.output }) },
        onError: [{ guard: "canTryAgain", target: "waiting" }, "failure"],
      },
      on: { CANCEL: "idle" },
    },
    waiting: { after: { backoff: "loading" }, on: { CANCEL: "idle" } },
    success: { type: "final" },
    failure: { on: { RETRY: { target: "loading", actions: assign({ tries: 0 }) } } },
  },
});
