// Who asks? Whatever user code does later, across any number of awaits, it does in the turn in which
// it was begun: that says whose log line, request or spawn it is.

import { AsyncLocalStorage } from "node:async_hooks";
import type { Activation } from "./activation.ts";

/** One computation, or one run of effects, of an activation. */
export class Turn {
  readonly activation: Activation;
  /** It threw: what it left behind in the background must never be seen. */
  dropped = false;
  /** It is an authorizer's: that may ask another server before it decides, and it changes nothing. */
  ungated = false;

  constructor(activation: Activation) {
    this.activation = activation;
  }
}

export const turns = new AsyncLocalStorage<Turn>();
