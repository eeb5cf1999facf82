// Every action that XState has, several services in one state, and snapshots of one of them.
import { assign, cancel, createMachine, emit, enqueueActions, fromCallback, fromPromise, log, raise, sendParent, sendTo, setup, spawnChild, stopChild } from "npm:xstate@5";

const child = createMachine({ id: "child" });

export default setup({
  actors: { child, feed: fromCallback(() => {}), load: fromPromise(async () => 1) },
}).createMachine({
  id: "actors",
  context: { count: 0, seen: false },
  initial: "starting",
  entry: [log("hello"), spawnChild("feed", { id: "news" })],
  exit: stopChild("news"),
  states: {
    starting: {
      entry: [
        raise({ type: "TICK" }, { delay: 1000, id: "tick" }),
        sendTo("news", { type: "SUBSCRIBE" }),
        emit({ type: "started" }),
        assign({ count: ({ context }) => context.count + 1, seen: true }),
        sendParent({ type: "CHILD_STARTED" }),
        enqueueActions(({ enqueue }) => enqueue("one")),
      ],
      exit: [cancel("tick"), function sayGoodbye() {}],
      on: { TICK: { actions: [() => {}, { type: "count", params: { by: 2 } }, "a", "b", "c", "d"] } },
      invoke: [
        { id: "loading", src: "load", onDone: "running", onError: "failed" },
        { id: "watching", src: "feed", onSnapshot: { actions: "look" } },
        { src: fromPromise(async function readSettings() { return 1; }), onDone: { actions: "keep" } },
        { src: child },
      ],
    },
    running: { on: { "news.*": { actions: "read" }, STOP: "stopped" } },
    failed: { always: { target: "starting", guard: "mayTryAgain" } },
    stopped: { type: "final", output: {} },
  },
});
