/** The second version: the same, and its state without a service has another name. */
import { subject } from "./common/subject.ts";

export { allowRead, allowWrite } from "./common/subject.ts";
export default subject("resting");
