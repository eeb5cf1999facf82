// What `npm:xstate@5` is.
export * from "xstate";
