"""HTTP as a client sends it, down to the connection: for tests that kill servers meanwhile."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 100  # longer than any instance may take to settle


class ConnectionLost(Exception):
    """The request was sent, or perhaps not, and no answer came: its outcome is unknown."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in small letters
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def outcome(self) -> tuple[int, str]:
        """(status, error code): what most refusals are told by."""
        return self.status, self.json["code"]


class HttpClient:
    """One connection at a time, kept while it lasts. For one thread.

    Nothing is ever sent twice: a request that got no answer raises ConnectionLost.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base_url)
        self._path = parts.path
        self._headers = {"content-type": "application/json", **headers}
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS
        )

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        act: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """`body` is sent as JSON, text and bytes as they are; `act` is the authContext to use."""
        sent = {**self._headers, **(headers or {})}
        if act is not None:
            sent["x-statebacked-act"] = json.dumps(act)
        data = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        try:
            self._connection.request(method, f"{self._path}{path}", data, sent)
            response = self._connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            raise ConnectionLost(str(exc)) from exc
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, text)

    def close(self) -> None:
        self._connection.close()
