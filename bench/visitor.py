"""A signed-in person's browser, as far as a benchmark needs one."""

import http.client
import time
import urllib.parse
from http.cookies import SimpleCookie
from typing import NamedTuple

from bench.site import BenchSite
from bench.workloads import WrongResult

TIMEOUT_S = 60


class Answer(NamedTuple):
    status: int
    body: bytes
    ms: float  # until the last byte was there


class Visitor:
    """The site's first admin, on one connection that is kept."""

    def __init__(self, site: BenchSite) -> None:
        self.org = site.org_id
        self._site = site
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", site.nodes[0].port, timeout=TIMEOUT_S
        )
        self._cookies: dict[str, str] = {}
        link = urllib.parse.urlsplit(site.manage("sign_in_link").split()[-1]).path
        self._request("GET", link)
        if self._request("POST", link).status != 302 or "sessionid" not in self._cookies:
            raise WrongResult("the link signs nobody in")

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())

    def page(self, path: str) -> Answer:
        """A page; raises WrongResult if it is not shown."""
        return _shown(path, self._request("GET", path))

    def api(self, path: str) -> Answer:
        """The same of the API, with an admin's token."""
        headers = {
            "authorization": f"Bearer {self._site.access_token}",
            "x-statebacked-org-id": self.org,
        }
        return _shown(path, self._request("GET", path, headers))

    def _request(self, method: str, path: str, headers: dict[str, str] | None = None) -> Answer:
        if headers is None:
            headers = {"cookie": self.cookie, "x-csrftoken": self._cookies.get("csrftoken", "")}
        started = time.monotonic()
        self._connection.request(method, path, headers=headers)
        answer = self._connection.getresponse()
        body = answer.read()
        ms = (time.monotonic() - started) * 1000
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                self._cookies |= {key: m.value for key, m in SimpleCookie(value).items()}
        return Answer(answer.status, body, ms)


def _shown(path: str, answer: Answer) -> Answer:
    if answer.status != 200:
        raise WrongResult(f"{path} answers {answer.status}: {answer.body[:300]!r}")
    return answer
