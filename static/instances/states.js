// State values of XState as the paths that pictures know states by.

/** The paths of the active states, as machines/flow/model.py writes them, without the root's "". */
export function activePaths(value, above = "") {
  if (typeof value === "string") return [join(above, value)];
  return Object.entries(value ?? {}).flatMap(([key, below]) => {
    const path = join(above, key);
    return [path, ...activePaths(below, path)];
  });
}

function join(above, key) {
  const name = key.replaceAll(".", "\\.");
  return above ? `${above}.${name}` : name;
}
