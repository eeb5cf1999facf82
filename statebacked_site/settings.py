"""All settings, from environment variables; docs/configuration.md lists every variable."""

import logging
import os
import ssl
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.utils.functional import SimpleLazyObject

from statebacked_site.databases import postgres_database, read_database_url, sqlite_database
from statebacked_site.environment import Environment, InvalidVariable
from statebacked_site.redis_urls import celery_broker_url, read_redis_url, site_tag
from statebacked_site.secret_key import load_or_create_secret_key

MIB = 1024 * 1024
GIB = 1024 * MIB

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment(os.environ)

# --- What an installation chooses ---------------------------------------------------------

# Everything that a running site keeps lies in here, and nothing else does.
DATA_DIR = env.path("STATEBACKED_DATA", BASE_DIR / "data")

# Where browsers and clients reach the site. `manage.py up` derives it from --host and --port
# unless the variable says it.
PUBLIC_URL_GIVEN = env.url("STATEBACKED_URL")
PUBLIC_URL = PUBLIC_URL_GIVEN or "http://127.0.0.1:8000"


def kept_secret_key() -> str:
    """The key in the data directory; raises InvalidVariable if that cannot be used."""
    try:
        return load_or_create_secret_key(DATA_DIR)
    except OSError as exc:
        raise InvalidVariable(
            f"STATEBACKED_DATA ({DATA_DIR}) cannot be used: {exc.strerror}. Give a directory that"
            " this user may write in: --data DIR"
        ) from exc


SECRET_KEY = env.text("STATEBACKED_SECRET_KEY", "", length_min=32) or kept_secret_key()

# Private networks that customers' code may reach all the same; none unless listed.
EGRESS_ALLOW = env.networks("STATEBACKED_EGRESS_ALLOW")

# How long a request waits for an instance to settle, counted from its last external event.
SETTLE_LIMIT = env.duration(
    "STATEBACKED_SETTLE_LIMIT",
    timedelta(seconds=90),
    minimum=timedelta(milliseconds=100),
    maximum=timedelta(minutes=15),
)

# Memory that all runner processes may use together; idle ones are stopped beyond it.
RUNNERS_MEMORY_BYTES = env.size(
    "STATEBACKED_RUNNERS_MEMORY", GIB, minimum=256 * MIB, maximum=1024 * GIB
)

LOG_RETENTION = timedelta(
    days=env.integer("STATEBACKED_LOG_RETENTION_DAYS", 30, minimum=1, maximum=3650)
)

LOG_LEVEL = env.choice(
    "STATEBACKED_LOG_LEVEL", "WARNING", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
)

# FULL survives a power cut; NORMAL may then lose the last acknowledged events.
SQLITE_SYNCHRONOUS = env.choice("STATEBACKED_SQLITE_SYNCHRONOUS", "FULL", ("FULL", "NORMAL"))

# --- Database -----------------------------------------------------------------------------

DATABASE_URL = env.text("DATABASE_URL", "")
DATABASE = read_database_url(DATABASE_URL) if DATABASE_URL else DATA_DIR / "db.sqlite3"

# Connections of one process that Django's own requests and look-ups share; the engine has its own.
POSTGRES_CONNECTIONS = env.integer("STATEBACKED_POSTGRES_CONNECTIONS", 10, minimum=2, maximum=1000)

# Where other processes of the same site reach this one; `manage.py up` knows unless it is said.
NODE_ADDRESS = env.url("STATEBACKED_NODE_ADDRESS")

# What a process is for: `web` and `worker` share the work of a site on Postgres, `all` does both.
# `manage.py up --role` and Celery's own command say it.
NODE_ROLE = "all"

# Where a worker listens for the other processes. `manage.py up` takes --host and --port.
WORKER_LISTEN = env.listen_address("STATEBACKED_WORKER_LISTEN", ("127.0.0.1", 0))

# Carries wake-ups and news between the processes of a site; nothing durable lies in it. A site on
# SQLite has one process and leaves it alone.
REDIS_URL = read_redis_url(env.text("REDIS_URL", ""))
if isinstance(DATABASE, Path):
    REDIS_URL = ""
SITE_TAG = site_tag(SECRET_KEY, DATABASE)

DATABASES: dict[str, dict[str, Any]] = {
    "default": (
        sqlite_database(DATABASE, SQLITE_SYNCHRONOUS)
        if isinstance(DATABASE, Path)
        else postgres_database(DATABASE, POSTGRES_CONNECTIONS)
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Parts --------------------------------------------------------------------------------

INSTALLED_APPS = [
    # Its runserver speaks ASGI and must come first. It takes a quarter of a second to import.
    *(["daphne"] if sys.argv[1:2] == ["runserver"] else []),
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "channels",
    "django_htmx",
    "allauth",
    "allauth.account",
    "statebacked_site",
    "authz",
    "machines",
    "instances",
    "machines.schedules",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "statebacked_site.content_security.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "statebacked_site.urls"
ASGI_APPLICATION = "statebacked_site.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

# --- Web ----------------------------------------------------------------------------------

DEBUG = False
APPEND_SLASH = False
ALLOWED_HOSTS = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    urlsplit(PUBLIC_URL).hostname or "",
    *env.words("STATEBACKED_ALLOWED_HOSTS"),
]

# The largest body that Django itself takes: a code bundle of 10 MB in a multipart upload, or
# the JSON of a migration that carries its code.
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * MIB
FILE_UPLOAD_MAX_MEMORY_SIZE = 16 * MIB

# A site that is reached by https sends its cookies by nothing else. The proxy in front of it
# ends TLS, so what Django itself sees is http.
SERVED_BY_HTTPS = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SECURE = SERVED_BY_HTTPS
CSRF_COOKIE_SECURE = SERVED_BY_HTTPS
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
SECURE_HSTS_SECONDS = 31_536_000 if SERVED_BY_HTTPS else 0
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_AGE = 14 * 24 * 3600

CONTENT_SECURITY_POLICY = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self' data:",
    "worker-src": "'self' blob:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Served from where they lie: a fresh checkout needs no collectstatic.
SERVESTATIC_USE_FINDERS = True

# --- Users --------------------------------------------------------------------------------

AUTH_USER_MODEL = "authz.User"
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# Signing in and changing passwords is django-allauth's, as authz/account_adapter.py tells it to be:
# by e-mail address, which nobody has to confirm, since the site sends no mail.
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_ADAPTER = "authz.account_adapter.AccountAdapter"
ACCOUNT_FORMS = {"login": "authz.forms.SignInForm"}
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_REDIRECT_URL = "home"
ACCOUNT_SESSION_REMEMBER = True
# Guesses at sign-in are counted by authz/passwords.py; `change_password` keeps its default.
ACCOUNT_RATE_LIMITS = {"login": None, "login_failed": None}

# --- API ----------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "EXCEPTION_HANDLER": "statebacked_site.errors.exception_handler",
    "DEFAULT_AUTHENTICATION_CLASSES": ["authz.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "State Backed",
    "DESCRIPTION": "Durable, addressable instances of statecharts.",
    "VERSION": "0.1.0",
    "SCHEMA_PATH_PREFIX": "/api",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
}

# --- Processes ----------------------------------------------------------------------------


def _engine_settings() -> Any:
    from statebacked_site.engine_settings import engine_settings

    return engine_settings()


# Read when the engine starts: its modules use Django's settings themselves.
ENGINE = SimpleLazyObject(_engine_settings)

# Counts wrong passwords by address: a flood of addresses must not push the counts out.
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}
if REDIS_URL:
    CACHES["default"] |= {
        "BACKEND": "statebacked_site.shared_cache.SharedCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": f"statebacked-{SITE_TAG}",
    }

CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

# Durable work lies in the database and Celery only carries it out: a task that is lost comes back
# because its row is still there, never because the broker has kept it.
CELERY_BROKER_URL = celery_broker_url(REDIS_URL) if REDIS_URL else "memory://"
CELERY_BROKER_USE_SSL = (
    {"ssl_cert_reqs": ssl.CERT_REQUIRED} if CELERY_BROKER_URL.startswith("rediss:") else None
)
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 2.0, "socket_keepalive": True}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_TASK_DEFAULT_QUEUE = f"statebacked-{SITE_TAG}"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
# Tasks hand work to the engine of their process, so they must run in that process.
CELERY_WORKER_POOL = "threads"
CELERY_WORKER_CONCURRENCY = 4
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False


def without_traceback(record: logging.LogRecord) -> bool:
    """A filter that drops nothing: what a stranger's request can cause is told in one line."""
    record.exc_info = None
    return True


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"no_traceback": {"()": lambda: without_traceback}},
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # Django's own handlers mail errors to people or speak only in debug mode.
        "django": {"handlers": [], "level": "NOTSET", "propagate": True},
        "django.server": {"handlers": [], "level": "NOTSET", "propagate": True},
        # A 4xx answer is the caller's affair and must not fill the log.
        "django.request": {"level": "ERROR"},
        "django.security.DisallowedHost": {"filters": ["no_traceback"]},
    },
}
