// An instance that is woken by schedules, and lets nobody else in.

import { assign, setup } from "npm:xstate@5";

export default setup({}).createMachine({
  context: ({ input }: any) => ({ public: { ...input?.public, count: 0 } }),
  initial: "waiting",
  states: {
    waiting: {
      on: {
        run: {
          actions: assign(({ context }: any) => ({
            public: { ...context.public, count: context.public.count + 1 },
          })),
        },
      },
    },
  },
});

export const allowRead = () => true;
export const allowWrite = ({ type, authContext }: any) =>
  authContext.stateBackedSchedule?.machineName === "nightly" ||
  (type === "initialization" && authContext.sub !== undefined);
