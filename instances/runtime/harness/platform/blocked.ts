// What customers' code gets for every built-in module of Node.
throw new Error("Node's built-in modules are not available to machines");
