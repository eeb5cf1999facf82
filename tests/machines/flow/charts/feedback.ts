// Conditions on an event's data, tags and meta.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "feedback",
  initial: "prompt",
  states: {
    prompt: {
      tags: ["visible", "question"],
      meta: { view: "Prompt" },
      on: { "feedback.good": "thanks", "feedback.bad": "form" },
    },
    form: {
      tags: ["visible"],
      meta: { view: "Form" },
      on: {
        "feedback.update": { actions: "keepText" },
        submit: [{ guard: ({ event }) => event.text.length > 0, target: "sending" }, { actions: "askForText" }],
        back: "prompt",
      },
    },
    sending: { tags: ["visible", "busy"], invoke: { src: "submitFeedback", onDone: "thanks", onError: "form" } },
    thanks: { tags: ["visible"], after: { 5000: "closed" } },
    closed: { type: "final" },
  },
  on: { close: ".closed", restart: ".prompt" },
});
