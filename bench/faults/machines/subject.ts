/** The first version of what fault runs work on. */
import { subject } from "./common/subject.ts";

export { allowRead, allowWrite } from "./common/subject.ts";
export default subject("idle");
