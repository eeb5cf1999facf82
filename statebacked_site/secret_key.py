"""The site's secret key, kept in its data directory unless the environment gives one."""

import os
import secrets
from pathlib import Path

SECRET_KEY_FILE = "secret-key"
SECRET_KEY_BYTES = 48


def load_or_create_secret_key(data_dir: Path) -> str:
    """The key in `data_dir`; the first call creates it, readable by its owner only."""
    path = data_dir / SECRET_KEY_FILE
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _create(path)
    return path.read_text(encoding="ascii").strip()


def _create(path: Path) -> None:
    """Write a new key unless another process does so first; `path` is never seen half written."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(SECRET_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # The other process won; its key counts.
    finally:
        draft.unlink()
