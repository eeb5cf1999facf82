"""The site's settings as the tests see them.

Nothing from outside gets in, and nothing that a test writes stays.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

for name in list(os.environ):
    if name.startswith("STATEBACKED_") or name in ("DATABASE_URL", "REDIS_URL"):
        del os.environ[name]

_directory = tempfile.mkdtemp(prefix="statebacked-tests-")
atexit.register(shutil.rmtree, _directory, ignore_errors=True)
os.environ["STATEBACKED_DATA"] = str(Path(_directory) / "data")

from statebacked_site.databases import postgres_database
from statebacked_site.settings import *
from statebacked_site.settings import DATA_DIR, DATABASES
from tests.servers import start_postgres

# Set by `manage.py test --database postgres`: the server that all tests of the run use then.
POSTGRES = None

if os.environ.get("TESTS_DATABASE") == "postgres":
    POSTGRES = start_postgres(Path(_directory) / "postgres")
    atexit.register(POSTGRES.stop, "immediate")
    DATABASES["default"] = postgres_database(POSTGRES.url(), 4)
    del DATABASES["default"]["OPTIONS"]["pool"]  # more threads ask at once than it has connections
    DATABASES["default"]["TEST"] = {"NAME": "tests"}
else:
    # A file, so that threads and the engine's own connections see the same database.
    DATABASES["default"]["TEST"] = {"NAME": DATA_DIR / "test.sqlite3"}

# Argon2 is slow on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
