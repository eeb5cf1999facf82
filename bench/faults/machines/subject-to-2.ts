/** From the first version to the second. */
export const upgradeState = ([name]: string[]) => [name === "idle" ? "resting" : name];
export const upgradeContext = (_before: string[][], _after: string[][], context: object) => context;
