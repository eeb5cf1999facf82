/** Everything that can go wrong in a machine, each by an event of its own. XState 5. */
import { assign, fromPromise, setup } from "xstate";
import { allocate, authorize, boom, countUp, fillBuffers, loopForever, pollute } from "./trouble";
import type { Context, TroubleEvent } from "./trouble";

const text = (event: { error: unknown }) => (event.error as Error).message;

export default setup({
  types: { context: {} as Context, events: {} as TroubleEvent },
  actors: {
    hang: fromPromise(() => new Promise(() => {})),
    fail: fromPromise(async () => boom("a service")),
    visit: fromPromise(async ({ input }: { input: string }) => (await fetch(input)).status),
  },
  guards: {
    boom: () => boom("a guard"),
    loop: () => loopForever(),
  },
  actions: {
    count: assign(({ context }) => countUp(context)),
    boomInAssign: assign(() => boom("an assign")),
    boomInAction: () => boom("an action"),
    loopInAction: () => void loopForever(),
    allocate: assign(() => allocate()),
    fillBuffers: assign(() => fillBuffers()),
    rejectUnheard: () => void Promise.reject(new Error("nobody listens")),
    pollute: assign(({ context }) => pollute(context)),
    probe: assign(({ context }) => ({
      public: { ...context.public, polluted: String(({} as { polluted?: string }).polluted) },
    })),
    grow: assign((_, { character, times }: { character: string; times: number }) => ({
      filling: character.repeat(times),
    })),
    call: (_, { url }: { url: string }) => void fetch(url),
    note: assign(({ context }, { problem }: { problem: string }) => ({
      public: { ...context.public, problem },
    })),
  },
}).createMachine({
  context: { filling: "", public: { count: 0 } },
  on: { count: { actions: "count" } },
  initial: "idle",
  states: {
    idle: {
      on: {
        boomInGuard: { guard: "boom", actions: "count" },
        boomInAssign: { actions: ["count", "boomInAssign"] },
        boomInAction: { actions: ["count", "boomInAction"] },
        loopInGuard: { guard: "loop", actions: "count" },
        loopInAction: { actions: ["count", "loopInAction"] },
        allocate: { actions: "allocate" },
        fillBuffers: { actions: "fillBuffers" },
        rejectUnheard: { actions: ["count", "rejectUnheard"] },
        pollute: { actions: "pollute" },
        probe: { actions: "probe" },
        grow: {
          actions: {
            type: "grow",
            params: ({ event }) => ({ character: event.character, times: event.times }),
          },
        },
        call: {
          actions: ["count", { type: "call", params: ({ event }) => ({ url: event.url }) }],
        },
        hang: "hanging",
        fail: "failing",
        visit: "visiting",
      },
    },
    hanging: {
      invoke: {
        src: "hang",
        onError: {
          target: "idle",
          actions: { type: "note", params: ({ event }) => ({ problem: text(event) }) },
        },
      },
    },
    failing: {
      invoke: {
        src: "fail",
        onError: {
          target: "idle",
          actions: { type: "note", params: ({ event }) => ({ problem: text(event) }) },
        },
      },
    },
    visiting: {
      on: { leave: "idle" },
      invoke: {
        src: "visit",
        input: ({ event }) => (event as { url: string }).url,
        onDone: { target: "idle", actions: { type: "note", params: { problem: "none" } } },
        onError: {
          target: "idle",
          actions: { type: "note", params: ({ event }) => ({ problem: text(event) }) },
        },
      },
    },
  },
});

export const { allowRead, allowWrite } = authorize;
