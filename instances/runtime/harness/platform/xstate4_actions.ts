// What `npm:xstate/lib/actions` is.
export * from "xstate4/es/actions.js";
