// The script of a page on another origin that uses the published client, bundled by test_client.py.
import { StateBackedClient } from "@statebacked/client";
import { follow } from "../acceptance/clients/following.mjs";

window.follow = (config) => follow(StateBackedClient, config);
