// What `npm:xstate/lib/utils` is.
export * from "xstate4/es/utils.js";
