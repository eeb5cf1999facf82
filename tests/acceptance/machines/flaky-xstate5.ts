// A service that fails twice, and asks the outside world with its effect key each time.

import { assign, fromPromise, setup } from "npm:xstate@5";

const tries = new Map<string, number>();

const ask = fromPromise<string, { url: string }>(async ({ input, self }) => {
  const { effectKey } = self as unknown as { effectKey: string };
  await fetch(`${input.url}/try/${effectKey}`, { method: "POST" });
  const made = (tries.get(effectKey) ?? 0) + 1;
  tries.set(effectKey, made);
  if (made < 3) {
    throw new Error(`try ${made}`);
  }
  return `done at ${made}`;
});

export default setup({ actors: { ask } }).createMachine({
  context: { public: { result: "" } },
  initial: "idle",
  states: {
    idle: { on: { ask: "asking" } },
    asking: {
      meta: { retry: { attempts: 3, delay: 10 } },
      invoke: {
        src: "ask",
        input: ({ event }) => ({ url: (event as unknown as { url: string }).url }),
        onDone: {
          target: "idle",
          actions: assign({ public: ({ event }) => ({ result: event.output }) }),
        },
        onError: "idle",
      },
    },
  },
});

export const allowRead = () => true;
export const allowWrite = () => true;
