"""The machines of `machines/examples` that a person may start from with one click."""

from typing import NamedTuple

from django.conf import settings


class Example(NamedTuple):
    name: str  # of the machine, and of the file
    title: str
    about: str

    def source(self) -> str:
        path = settings.BASE_DIR / "machines" / "examples" / f"{self.name}.ts"
        return path.read_text(encoding="utf-8")


EXAMPLES = (
    Example("toggler", "Toggler", "The smallest machine there is"),
    Example("order", "Order", "A payment service that may fail, and a deadline"),
    Example("approval", "Approval", "Waits for people, and escalates in time"),
    Example("chat-room", "Chat room", "Many people, one live state"),
    Example("counter", "Counter", "Only context, with limits and owners"),
    Example("order-xstate4", "Order, XState 4", "The same order in the older version"),
)


def example_named(name: str) -> Example | None:
    return next((example for example in EXAMPLES if example.name == name), None)
