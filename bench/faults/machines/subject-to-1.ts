/** From the second version to the first. */
export const upgradeState = ([name]: string[]) => [name === "resting" ? "idle" : name];
export const upgradeContext = (_before: string[][], _after: string[][], context: object) => context;
