// The output gate of one activation: between a step and its commit nothing leaves the process.

import { LIMITS } from "./protocol.ts";
import type { Turn } from "./turn.ts";

interface Waiting {
  turn: Turn;
  isLog: boolean;
  go: () => void;
}

export class Gate {
  open = true;
  #waiting: Waiting[] = [];

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Runs `go` as soon as the gate is open; never, if there is too much in front of it. */
  pass(turn: Turn, isLog: boolean, go: () => void): void {
    if (this.open) {
      go();
    } else if (this.#waiting.length < LIMITS.waitingPerActivation) {
      this.#waiting.push({ turn, isLog, go });
    }
  }

  release(): void {
    this.open = true;
    const waiting = this.#waiting;
    if (waiting.length > 0) {
      this.#waiting = [];
      for (const { go } of waiting) {
        go();
      }
    }
  }

  /** `turn` threw: its logs go out at once, since somebody will want to read them; nothing else. */
  drop(turn: Turn): void {
    turn.dropped = true;
    if (this.#waiting.length > 0) {
      const waiting = this.#waiting;
      this.#waiting = waiting.filter((entry) => entry.turn !== turn);
      for (const entry of waiting) {
        if (entry.turn === turn && entry.isLog) {
          entry.go();
        }
      }
    }
  }

  clear(): void {
    this.open = false;
    this.#waiting = [];
  }
}
