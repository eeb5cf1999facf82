"""The pages that belong to no single app: home, search, timers, attention and logs."""
