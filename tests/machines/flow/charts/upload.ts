// A parallel state that is done when all of its regions are.
import { createMachine } from "npm:xstate@5";

const part = (name: string) => ({
  initial: "sending",
  states: {
    sending: { invoke: { src: `send ${name}`, onDone: "sent", onError: "failed" } },
    failed: { on: { RETRY: "sending" } },
    sent: { type: "final" as const },
  },
});

export default createMachine({
  id: "upload",
  initial: "choosing",
  states: {
    choosing: { on: { FILES: { target: "uploading", guard: "fewerThanTen" } } },
    uploading: {
      type: "parallel",
      states: { picture: part("picture"), caption: part("caption"), thumbnail: part("thumbnail") },
      onDone: "published",
      on: { CANCEL: "choosing" },
    },
    published: { entry: "tellFollowers", type: "final" },
  },
});
