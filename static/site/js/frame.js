// What every page of an org does in the browser. Each import is one behaviour.

import "./ago.js";
import "./calm.js";
import "./copy.js";
import "./dialogs.js";
import "./failed.js";
import "./keys.js";
import "./live.js";
import "./menus.js";
import "./palette.js";
import "./theme.js";
import "./toasts.js";
