// One machine with a bit of everything, for XState 4. PREDICTABLE is set when it is bundled.
import { actions, assign, createMachine, send, sendParent, spawn } from "npm:xstate";

const { cancel, choose, log, raise } = actions;
const effect = (text) => console.log(`EFFECT ${text}`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function load(x) {
  effect(`load start ${x}`);
  await pause(5);
  if (x === "bad") {
    throw new Error("boom");
  }
  return { got: x };
}

/** What it does before its first await, it does while the transition is computed. */
async function spawned() {
  effect("load start spawned");
  await pause(5);
}

const kid = createMachine({
  predictableActionArguments: PREDICTABLE,
  id: "kid",
  initial: "waiting",
  context: { k: 0 },
  states: {
    waiting: { entry: () => effect("kid entry"), after: { 20: "greeting" } },
    greeting: { entry: sendParent({ type: "KID_HI" }), on: { BYE: "over" } },
    over: { type: "final", data: ({ k }) => ({ kid: k }) },
  },
});

function callback() {
  return (sendBack, receive) => {
    effect("cb start");
    receive((event) => {
      effect(`cb got ${event.type}`);
      sendBack({ type: "PONG" });
    });
    return () => effect("cb stop");
  };
}

const spawnNow = BUNDLED
  ? (entity, name) => globalThis.__statebacked_rt.spawn(entity, name)
  : spawn;

export const allowRead = () => true;
export const allowWrite = () => true;

export default createMachine({
  predictableActionArguments: PREDICTABLE,
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
            SPAWN: { actions: assign({ ref: () => spawnNow(spawned(), "sp") }) },
            ENQ: {
              actions: [
                assign({ n: ({ n }) => n + 1 }),
                () => effect("enq"),
                choose([{ cond: "big", actions: raise("BIG") }]),
                send({ type: "LATER" }, { delay: 7000, id: "later" }),
              ],
            },
            CANCEL: { actions: cancel("later") },
            SENDNOW: { actions: send({ type: "PONG" }) },
            LOG: { actions: log(() => "logged") },
            THROW: {
              cond: () => {
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
            src: (_, event) => load(event.x),
            onDone: {
              target: "check",
              actions: assign({ got: (_, event) => event.data, n: ({ n }) => n + 1 }),
            },
            onError: {
              target: "failed",
              actions: assign({ got: (_, event) => event.data.message }),
            },
          },
        },
        check: { always: [{ cond: "big", target: "bigger" }, { target: "idle" }] },
        bigger: {},
        failed: { on: { BACK: "idle" } },
        timed: {
          after: { 1000: { target: "idle", actions: () => effect("after fired") }, soon: "failed" },
          on: { BACK: "idle" },
        },
        withKid: {
          invoke: {
            id: "kid1",
            src: kid,
            data: { k: 7 },
            onDone: { target: "idle", actions: assign({ got: (_, event) => event.data }) },
          },
          on: { KID_HI: { actions: send({ type: "BYE" }, { to: "kid1" }) } },
        },
        withCallback: {
          entry: send({ type: "PING" }, { to: "cb" }),
          invoke: { id: "cb", src: callback },
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
}, { guards: { big: ({ n }) => n > 2 }, delays: { soon: ({ n }) => 5000 + n } });
