"""A small client of the HTTP API for the commands; programs use @statebacked/client."""

import gzip
import json
import secrets
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_SECONDS = 120  # longer than an instance may take to settle


class ApiError(Exception):
    """The API refused; the message is the API's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code


class SiteUnreachable(Exception):
    """Nothing answered."""


class SiteClient:
    """Talks to one org's API at `api_url`, such as http://127.0.0.1:8000/api."""

    def __init__(self, api_url: str, access_token: str, org_id: str) -> None:
        self._api_url = api_url
        self._headers = {
            "authorization": f"Bearer {access_token}",
            "x-statebacked-org-id": org_id,
        }
        # The site is on this machine or inside the network: a proxy could only be in the way.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def request(self, method: str, path: str, body: object = None, act: object = None) -> Any:
        """The JSON that the API answers (None if it answers nothing). Raises ApiError.

        With `act`, the request is made for the end user with that authContext.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "content-type": "application/json"}
        if act is not None:
            headers["x-statebacked-act"] = json.dumps(act)
        return self._send(method, f"{self._api_url}/{path.lstrip('/')}", data, headers)

    def create_machine(self, machine: str) -> bool:
        """Create the machine and return True, or False if it exists already."""
        try:
            self.request("POST", "machines", {"slug": machine})
        except ApiError as exc:
            if exc.status == 409:
                return False
            raise
        return True

    def current_version(self, machine: str) -> str | None:
        """The id of the machine's current version."""
        version = self.request("GET", f"machines/{machine}").get("currentVersion")
        return None if version is None else str(version["id"])

    def publish_version(self, machine: str, code: bytes, client_info: str) -> str:
        """Upload a bundle as the machine's new current version and return the version's id."""
        final = {"clientInfo": client_info, "makeCurrent": True}
        return self._publish(f"machines/{machine}/v", "machineVersionId", {}, code, final)

    def publish_migration(
        self, machine: str, code: bytes, from_version: str, to_version: str
    ) -> str:
        """Upload a migration between two versions of the machine and return its id."""
        versions = {"fromMachineVersionId": from_version, "toMachineVersionId": to_version}
        path = f"machines/{machine}/migrations"
        return self._publish(path, "machineVersionMigrationId", versions, code, {})

    def _publish(
        self,
        path: str,
        id_name: str,
        draft_body: dict[str, Any],
        code: bytes,
        final_body: dict[str, Any],
    ) -> str:
        draft = self.request("POST", f"{path}?gzip", draft_body)
        self._upload(draft["codeUploadUrl"], draft["codeUploadFields"], code)
        final = self.request("PUT", f"{path}/{draft[id_name]}", final_body)
        return str(final[id_name])

    def _upload(self, url: str, fields: dict[str, str], code: bytes) -> None:
        boundary = secrets.token_hex(16)
        fields = {**fields, "content-type": "application/javascript", "content-encoding": "gzip"}
        parts = [
            f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        head = (
            f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="code.js"\r\n'
            "content-type: application/javascript\r\n\r\n"
        )
        data = "".join([*parts, head]).encode() + gzip.compress(code)
        data += f"\r\n--{boundary}--\r\n".encode()
        self._send("POST", url, data, {"content-type": f"multipart/form-data; boundary={boundary}"})

    def _send(self, method: str, url: str, data: bytes | None, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with self._open(request, timeout=TIMEOUT_SECONDS) as response:
                answer = response.read()
        except urllib.error.HTTPError as exc:
            with exc:
                raise _api_error(exc.code, exc.read()) from exc
        except (urllib.error.URLError, OSError) as exc:
            raise SiteUnreachable(f"{url} cannot be reached: {exc}") from exc
        return json.loads(answer) if answer.strip() else None


def _api_error(status: int, body: bytes) -> ApiError:
    try:
        answer = json.loads(body)
        return ApiError(status, str(answer["code"]), str(answer["error"]))
    except (ValueError, KeyError, TypeError):
        text = body[:200].decode(errors="replace").strip()
        return ApiError(status, "no-code", text or "no message")
