"""Settings are read once per process, so each case here is a process of its own."""

import ast
import json
import re
import stat
import subprocess
import sys

import pytest

from tests.conftest import PROJECT_ROOT, site_environment

SHOW = """
import json
from statebacked_site import settings as s
names = [name for name in dir(s) if name.isupper() and name != "ENGINE"]
print(json.dumps({name: str(getattr(s, name)) for name in names}))
"""
CHECK = "from statebacked_site.command_line import run; run(['manage.py', 'check'])"


def run_python(script, tmp_path, **variables):
    variables = {"STATEBACKED_DATA": str(tmp_path / "data"), **variables}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT_ROOT,
        env=site_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


def read_settings(tmp_path, **variables):
    result = run_python(SHOW, tmp_path, **variables)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_defaults_are_safe(tmp_path):
    settings = read_settings(tmp_path)

    assert settings["DEBUG"] == "False"
    assert settings["EGRESS_ALLOW"] == "()"
    assert settings["SETTLE_LIMIT"] == "0:01:30"
    assert "synchronous=FULL" in settings["DATABASES"]
    assert settings["PUBLIC_URL"] == "http://127.0.0.1:8000"
    assert "*" not in settings["ALLOWED_HOSTS"]


def test_site_behind_https_sends_its_cookies_by_https_only(tmp_path):
    settings = read_settings(tmp_path, STATEBACKED_URL="https://sb.example.com")

    assert settings["SESSION_COOKIE_SECURE"] == settings["CSRF_COOKIE_SECURE"] == "True"
    assert settings["CSRF_TRUSTED_ORIGINS"] == "['https://sb.example.com']"
    assert "'sb.example.com'" in settings["ALLOWED_HOSTS"]


def test_secret_key_is_made_once_and_private(tmp_path):
    first = read_settings(tmp_path)
    second = read_settings(tmp_path)

    assert first["SECRET_KEY"] == second["SECRET_KEY"]
    assert len(first["SECRET_KEY"]) >= 50
    mode = (tmp_path / "data" / "secret-key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_secret_key_of_the_environment_leaves_no_file(tmp_path):
    settings = read_settings(tmp_path, STATEBACKED_SECRET_KEY="k" * 40)

    assert settings["SECRET_KEY"] == "k" * 40
    assert not (tmp_path / "data").exists()


def test_database_may_lie_elsewhere(tmp_path):
    settings = read_settings(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/other.sqlite3")

    assert settings["DATABASE"] == str(tmp_path / "other.sqlite3")


def test_postgres_is_named_by_its_address(tmp_path):
    url = "postgres://someone:secret@db.example.com:5433/site?sslmode=require"
    database = ast.literal_eval(read_settings(tmp_path, DATABASE_URL=url)["DATABASES"])["default"]

    assert database["ENGINE"] == "statebacked_site.pooled_postgres"
    assert (database["HOST"], database["PORT"], database["NAME"]) == (
        "db.example.com",
        "5433",
        "site",
    )
    assert database["OPTIONS"]["sslmode"] == "require"
    assert database["OPTIONS"]["pool"]["max_size"] == 10


def test_redis_is_used_by_a_site_on_postgres_and_by_no_other(tmp_path):
    redis = "rediss://:secret@redis.example.com:6380/1"
    postgres = "postgres://someone:secret@db.example.com/site"

    alone = read_settings(tmp_path, REDIS_URL=redis)
    shared = read_settings(tmp_path, REDIS_URL=redis, DATABASE_URL=postgres)

    assert (alone["REDIS_URL"], alone["CELERY_BROKER_URL"]) == ("", "memory://")
    assert "LocMemCache" in alone["CACHES"]
    assert (shared["REDIS_URL"], shared["CELERY_BROKER_URL"]) == (redis, redis)
    assert "CERT_REQUIRED" in shared["CELERY_BROKER_USE_SSL"]
    assert shared["SITE_TAG"] in shared["CELERY_TASK_DEFAULT_QUEUE"]
    assert shared["SITE_TAG"] in shared["CACHES"]


def test_wrong_database_address_is_not_repeated(tmp_path):
    result = run_python(CHECK, tmp_path, DATABASE_URL="postgres://someone:secret@/")

    assert result.stderr.startswith("DATABASE_URL")
    assert "secret" not in result.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STATEBACKED_URL", "sb.example.com"),
        ("STATEBACKED_SECRET_KEY", "short"),
        ("STATEBACKED_EGRESS_ALLOW", "10.0.0.0/33"),
        ("STATEBACKED_SETTLE_LIMIT", "90"),
        ("STATEBACKED_RUNNERS_MEMORY", "10MB"),
        ("STATEBACKED_LOG_RETENTION_DAYS", "0"),
        ("STATEBACKED_LOG_LEVEL", "LOUD"),
        ("STATEBACKED_SQLITE_SYNCHRONOUS", "OFF"),
        ("DATABASE_URL", "mysql://localhost/statebacked"),
        ("DATABASE_URL", "sqlite://:memory:"),
        ("DATABASE_URL", "postgres://localhost"),
        ("STATEBACKED_POSTGRES_CONNECTIONS", "1"),
        ("STATEBACKED_WORKER_LISTEN", "8001"),
        ("REDIS_URL", "http://localhost:6379"),
    ],
)
def test_wrong_variable_stops_every_command_and_is_named(tmp_path, name, value):
    result = run_python(CHECK, tmp_path, **{name: value})

    assert result.returncode == 1
    assert result.stderr.startswith(name)
    assert "Traceback" not in result.stderr


def test_data_directory_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "data").write_text("a file")

    result = run_python(CHECK, tmp_path)

    assert result.returncode == 1
    assert f"STATEBACKED_DATA ({tmp_path / 'data'}) cannot be used" in result.stderr
    assert "Traceback" not in result.stderr


def test_every_variable_is_documented_and_nothing_else():
    from statebacked_site.settings import env

    table = (PROJECT_ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE))

    assert documented == env.names
