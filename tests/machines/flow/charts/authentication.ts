// Many ways out of one state and back into it.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "authentication",
  initial: "signedOut",
  states: {
    signedOut: { on: { SIGN_IN: "checking", SIGN_UP: "registering", FORGOT: "resetting" } },
    checking: {
      invoke: {
        src: "checkPassword",
        onDone: [{ guard: "noSecondFactor", target: "signedIn" }, "secondFactor"],
        onError: [
          { guard: "tooManyAttempts", target: "locked", actions: "warnOwner" },
          { target: "signedOut", actions: "showError" },
        ],
      },
    },
    secondFactor: {
      on: { CODE: { guard: "isValidCode", target: "signedIn" }, RESEND: { actions: "sendCode" } },
      after: { 300000: "signedOut" },
    },
    registering: { invoke: { src: "createUser", onDone: "signedIn", onError: { target: "signedOut", actions: "showError" } } },
    resetting: { invoke: { src: "mailResetLink", onDone: "signedOut" } },
    locked: { after: { 900000: "signedOut" } },
    signedIn: {
      initial: "fresh",
      on: { SIGN_OUT: { target: "signedOut", actions: ["clearTokens", "forgetUser"] } },
      states: {
        fresh: { after: { 3600000: "stale" } },
        stale: { on: { REFRESH: "refreshing" } },
        refreshing: { invoke: { src: "refreshToken", onDone: "fresh", onError: "#authentication.signedOut" } },
      },
    },
  },
});
