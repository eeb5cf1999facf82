// A service that fails twice, and asks the outside world with its effect key each time.

import { assign, createMachine } from "npm:xstate@4";

const tries = new Map<string, number>();

export default createMachine<any, any>({
  predictableActionArguments: true,
  context: { public: { result: "" } },
  initial: "idle",
  states: {
    idle: { on: { ask: "asking" } },
    asking: {
      invoke: {
        src: "ask",
        meta: { retry: { attempts: 3, delay: 10 } },
        onDone: {
          target: "idle",
          actions: assign({ public: (_context: any, event: any) => ({ result: event.data }) }),
        },
        onError: "idle",
      },
    },
  },
}, {
  services: {
    ask: async (_context: any, event: any, { effectKey }: any) => {
      await fetch(`${event.url}/try/${effectKey}`, { method: "POST" });
      const made = (tries.get(effectKey) ?? 0) + 1;
      tries.set(effectKey, made);
      if (made < 3) {
        throw new Error(`try ${made}`);
      }
      return `done at ${made}`;
    },
  },
});

export const allowRead = () => true;
export const allowWrite = () => true;
