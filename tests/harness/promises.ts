// The promises of services in generated machines: settled one at a time, when everything else is
// quiet, so that their order does not depend on how long a commit takes.

/** More turns of the microtask queue than what follows from one promise needs. */
const TURNS = 40;

const waiting = new Map<string, (() => void)[]>();

export function forgetPromises(): void {
  waiting.clear();
}

/** Resolves when it is the turn of `id`. */
export function turnOf(id: string): Promise<void> {
  return new Promise((resolve) => {
    waiting.set(id, [...(waiting.get(id) ?? []), resolve]);
  });
}

/** Lets one promise go on, and what follows from it happen; false if there is none. */
export async function settleOne(): Promise<boolean> {
  await quiet();
  const id = [...waiting.keys()].toSorted()[0];
  if (id === undefined) {
    return false;
  }
  const [first, ...others] = waiting.get(id)!;
  if (others.length > 0) {
    waiting.set(id, others);
  } else {
    waiting.delete(id);
  }
  first!();
  await quiet();
  return true;
}

export async function quiet(): Promise<void> {
  for (let i = 0; i < TURNS; i++) {
    await null;
  }
}
