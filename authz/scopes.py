"""Every scope there is, and which of them a role or the use of a key stands for."""

from collections.abc import Iterable

from authz.models import Membership

ALL = frozenset(
    {
        "analytics.read",
        "events.read",
        "events.write",
        "indexes.read",
        "instances.admin",
        "instances.read",
        "instances.write",
        "logs.read",
        "machine-versions.read",
        "machine-versions.write",
        "machines.admin",
        "machines.read",
        "machines.write",
        "org-members.write",
        "org.keys.write",
        "org.read",
        "org.write",
        "state.read",
        "tokens.admin",
    }
)

# Both spellings are in use for one scope.
ALIASES = {"org-keys.write": "org.keys.write"}

READ = frozenset(scope for scope in ALL if scope.endswith(".read"))
WRITE = READ | {"events.write", "instances.write", "machine-versions.write", "machines.write"}

OF_ROLE = {
    Membership.Role.ADMIN: ALL,
    Membership.Role.WRITE: WRITE,
    Membership.Role.READ: READ,
}

# `use` of a new key: what an app's server needs, and what a deployment needs.
OF_USE = {
    "production": frozenset({"events.write", "state.read", "instances.write", "indexes.read"}),
    "ci": frozenset(
        {"machines.read", "machines.write", "machine-versions.read", "machine-versions.write"}
    ),
}

# What a person may do without having chosen one of several orgs.
OUTSIDE_ORGS = frozenset({"org.read"})


def canonical(scopes: Iterable[str]) -> frozenset[str]:
    """`scopes` in our spelling; unknown ones stay, so that the caller can name them."""
    return frozenset(ALIASES.get(scope, scope) for scope in scopes)
