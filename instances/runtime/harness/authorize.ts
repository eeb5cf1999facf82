// allowRead and allowWrite: `true` allows; anything else, a throw included, is a denial.

import { LIMITS } from "./protocol.ts";
import { clearTimer, parse, setTimer } from "./primordials.ts";

export type Authorizer = (request: object) => unknown;

// The functions get copies of their own, parsed only if they look: most read one property. Getters
// of an object literal are ordinary own, enumerable properties, so `({ state }) =>`, `{...request}`
// and JSON.stringify(request) work as ever.

export function readRequest(
  machineInstanceName: string,
  state: string,
  context: string,
  auth: string,
): object {
  let stateCopy: unknown;
  let contextCopy: unknown;
  let authCopy: unknown;
  return {
    machineInstanceName,
    get state() {
      return stateCopy ??= parse(state).state;
    },
    get context() {
      return contextCopy ??= parse(context);
    },
    get authContext() {
      return authCopy ??= parse(auth);
    },
  };
}

export function initializationRequest(
  machineInstanceName: string,
  context: string,
  auth: string,
): object {
  let contextCopy: unknown;
  let authCopy: unknown;
  return {
    type: "initialization",
    machineInstanceName,
    get context() {
      return contextCopy ??= parse(context);
    },
    get authContext() {
      return authCopy ??= parse(auth);
    },
  };
}

export function eventRequest(
  machineInstanceName: string,
  state: string,
  context: string,
  event: string,
  auth: string,
): object {
  let stateCopy: unknown;
  let contextCopy: unknown;
  let eventCopy: unknown;
  let authCopy: unknown;
  return {
    type: "event",
    machineInstanceName,
    get state() {
      return stateCopy ??= parse(state).state;
    },
    get context() {
      return contextCopy ??= parse(context);
    },
    get event() {
      return eventCopy ??= parse(event);
    },
    get authContext() {
      return authCopy ??= parse(auth);
    },
  };
}

export function isPromise(value: any): value is PromiseLike<unknown> { // any: tested here
  return typeof value === "object" && value !== null && typeof value.then === "function";
}

/** Waits for an authorizer's promise, but not for ever: rejects after LIMITS.authorizerMs. */
export function withinTimeLimit(name: string, verdict: PromiseLike<unknown>): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const timeout = setTimer(() => {
      reject(new Error(`${name} took longer than ${LIMITS.authorizerMs / 1000} s`));
    }, LIMITS.authorizerMs);
    verdict.then(
      (value) => {
        clearTimer(timeout);
        resolve(value);
      },
      (error) => {
        clearTimer(timeout);
        reject(error);
      },
    );
  });
}
