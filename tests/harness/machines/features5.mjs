// One machine with a bit of everything, for XState 5.
import {
  assign,
  cancel,
  createMachine,
  emit,
  enqueueActions,
  fromCallback,
  fromPromise,
  log,
  sendParent,
  sendTo,
  setup,
} from "npm:xstate@5";

const effect = (text) => console.log(`EFFECT ${text}`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const kid = createMachine({
  id: "kid",
  initial: "waiting",
  context: ({ input }) => ({ k: input.k }),
  output: ({ context }) => ({ kid: context.k }),
  states: {
    waiting: { entry: () => effect("kid entry"), after: { 20: "greeting" } },
    greeting: { entry: sendParent({ type: "KID_HI" }), on: { BYE: "over" } },
    over: { type: "final" },
  },
});

export const allowRead = () => true;
export const allowWrite = () => true;

export default setup({
  actors: {
    kid,
    load: fromPromise(async ({ input }) => {
      effect(`load start ${input.x}`);
      await pause(5);
      if (input.x === "bad") {
        throw new Error("boom");
      }
      return { got: input.x };
    }),
    tick: fromCallback(({ sendBack, receive }) => {
      effect("cb start");
      receive((event) => {
        effect(`cb got ${event.type}`);
        sendBack({ type: "PONG" });
      });
      return () => effect("cb stop");
    }),
  },
  guards: { big: ({ context }) => context.n > 2 },
  delays: { soon: ({ context }) => 5000 + context.n },
}).createMachine({
  id: "features",
  type: "parallel",
  context: { n: 0, got: null, ref: null },
  states: {
    main: {
      initial: "idle",
      states: {
        idle: {
          tags: ["resting"],
          on: {
            LOAD: "loading",
            TIMED: "timed",
            HIST: "deep",
            CHILD: "withKid",
            CB: "withCallback",
            SPAWN: {
              actions: assign({
                ref: ({ spawn }) => spawn("load", { id: "sp", input: { x: "spawned" } }),
              }),
            },
            ENQ: {
              actions: enqueueActions(({ enqueue, check }) => {
                enqueue.assign({ n: ({ context }) => context.n + 1 });
                enqueue(() => effect("enq"));
                if (check("big")) {
                  enqueue.raise({ type: "BIG" });
                }
                enqueue.sendTo(({ self }) => self, { type: "LATER" }, { delay: 7000, id: "later" });
              }),
            },
            CANCEL: { actions: cancel("later") },
            SENDNOW: { actions: sendTo(({ self }) => self, { type: "PONG" }) },
            LOG: { actions: [log("logged"), emit({ type: "unheard" })] },
            THROW: {
              guard: () => {
                throw new Error("guard exploded");
              },
              target: "timed",
            },
            PONG: { actions: assign({ got: "pong" }) },
          },
        },
        loading: {
          entry: () => effect("enter loading"),
          invoke: {
            id: "ld",
            src: "load",
            input: ({ event }) => ({ x: event.x }),
            onDone: {
              target: "check",
              actions: assign({
                got: ({ event }) => event.output,
                n: ({ context }) => context.n + 1,
              }),
            },
            onError: {
              target: "failed",
              actions: assign({ got: ({ event }) => event.error.message }),
            },
          },
        },
        check: { always: [{ guard: "big", target: "bigger" }, { target: "idle" }] },
        bigger: {},
        failed: { on: { BACK: "idle" } },
        timed: {
          after: { 1000: { target: "idle", actions: () => effect("after fired") }, soon: "failed" },
          on: { BACK: "idle" },
        },
        withKid: {
          invoke: {
            id: "kid1",
            src: "kid",
            input: { k: 7 },
            onDone: { target: "idle", actions: assign({ got: ({ event }) => event.output }) },
          },
          on: { KID_HI: { actions: sendTo("kid1", { type: "BYE" }) } },
        },
        withCallback: {
          entry: sendTo("cb", { type: "PING" }),
          invoke: { id: "cb", src: "tick" },
          on: { PONG: "idle" },
        },
        deep: {
          initial: "h1",
          states: {
            h1: { on: { NEXT: "h2" } },
            h2: { initial: "d1", states: { d1: { on: { NEXT: "d2" } }, d2: {} } },
            hist: { type: "history", history: "deep" },
          },
          on: { OUT: "outside" },
        },
        outside: { on: { RET: "deep.hist" } },
      },
    },
    side: {
      initial: "off",
      states: { off: { on: { FLIP: "on", BIG: "on" } }, on: { on: { FLIP: "off" } } },
    },
  },
});
