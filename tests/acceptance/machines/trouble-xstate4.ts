/** Everything that can go wrong in a machine, each by an event of its own. XState 4. */
import { assign, createMachine } from "npm:xstate@4";
import type { DoneInvokeEvent } from "npm:xstate@4";
import { allocate, authorize, boom, countUp, fillBuffers, loopForever, pollute } from "./trouble";
import type { Context, TroubleEvent } from "./trouble";

export default createMachine(
  {
    schema: { context: {} as Context, events: {} as TroubleEvent },
    predictableActionArguments: true,
    context: { filling: "", public: { count: 0 } },
    on: { count: { actions: "count" } },
    initial: "idle",
    states: {
      idle: {
        on: {
          boomInGuard: { cond: "boom", actions: "count" },
          boomInAssign: { actions: ["count", "boomInAssign"] },
          boomInAction: { actions: ["count", "boomInAction"] },
          loopInGuard: { cond: "loop", actions: "count" },
          loopInAction: { actions: ["count", "loopInAction"] },
          allocate: { actions: "allocate" },
          fillBuffers: { actions: "fillBuffers" },
          rejectUnheard: { actions: ["count", "rejectUnheard"] },
          pollute: { actions: "pollute" },
          probe: { actions: "probe" },
          grow: { actions: "grow" },
          call: { actions: ["count", "call"] },
          hang: "hanging",
          fail: "failing",
          visit: "visiting",
        },
      },
      hanging: { invoke: { src: "hang", onError: { target: "idle", actions: "note" } } },
      failing: { invoke: { src: "fail", onError: { target: "idle", actions: "note" } } },
      visiting: {
        on: { leave: "idle" },
        invoke: {
          src: "visit",
          onDone: { target: "idle", actions: "noteNone" },
          onError: { target: "idle", actions: "note" },
        },
      },
    },
  },
  {
    services: {
      hang: () => new Promise(() => {}),
      fail: async () => boom("a service"),
      visit: async (_, event) => (await fetch((event as { url: string }).url)).status,
    },
    guards: {
      boom: () => boom("a guard"),
      loop: () => loopForever(),
    },
    actions: {
      count: assign((context) => countUp(context)),
      boomInAssign: assign(() => boom("an assign")),
      boomInAction: () => boom("an action"),
      loopInAction: () => void loopForever(),
      allocate: assign(() => allocate()),
      fillBuffers: assign(() => fillBuffers()),
      rejectUnheard: () => void Promise.reject(new Error("nobody listens")),
      pollute: assign((context) => pollute(context)),
      probe: assign((context) => ({
        public: { ...context.public, polluted: String(({} as { polluted?: string }).polluted) },
      })),
      grow: assign((_, event) =>
        event.type === "grow" ? { filling: event.character.repeat(event.times) } : {},
      ),
      call: (_, event) => void fetch((event as { url: string }).url),
      note: assign((context, event) => ({
        public: { ...context.public, problem: (event as DoneInvokeEvent<Error>).data.message },
      })),
      noteNone: assign((context) => ({ public: { ...context.public, problem: "none" } })),
    },
  },
);

export const { allowRead, allowWrite } = authorize;
