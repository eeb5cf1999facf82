/** From parcel-xstate4.ts or parcel-xstate5.ts to parcel-v2.ts. */
import type { UpgradeContext, UpgradeState } from "@statebacked/machine";

type Old = { owner: string; public: { touched: number } };
type New = { public: { owner: string; touched: number; upgraded: boolean } };

export const upgradeState: UpgradeState<Old> = (path) => {
  switch (path[0]) {
    case "packing":
      return ["packed", ...path.slice(1)];
    case "moving":
      return ["away", "moving"];
    case "lost":
      return ["missing"];
    default:
      return path;
  }
};

export const upgradeContext: UpgradeContext<Old, New> = (oldPaths, newPaths, context) => {
  console.log("upgraded", JSON.stringify(oldPaths), "to", JSON.stringify(newPaths));
  if (context.owner === "fragile") {
    throw new Error("a fragile parcel can't be upgraded");
  }
  return {
    public: { owner: context.owner, touched: context.public.touched, upgraded: true },
  };
};
