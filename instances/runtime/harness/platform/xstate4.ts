// What `npm:xstate` and `npm:xstate@4` are: the latest XState 4.
export * from "xstate4/es/index.js";
