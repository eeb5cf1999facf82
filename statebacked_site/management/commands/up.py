"""Migrates the database and serves: all in one process, or as one part of a larger site."""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from statebacked_site import databases, demo, server, welcome
from statebacked_site.running import AlreadyRunning, RunningServer, only_server

ROLES = ("all", "web", "worker")
WEB_PORT = 8000
ANY_ADDRESS = ("0.0.0.0", "::", "")


class Command(BaseCommand):
    help = "Start State Backed: all in one process, or as one of several (docs/production.md)."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", help="address to listen on (127.0.0.1)")
        parser.add_argument(
            "--port", type=_port, help=f"port ({WEB_PORT}; of a worker: a free one; 0: a free one)"
        )
        parser.add_argument(
            "--role",
            choices=ROLES,
            default="all",
            help="web serves people and clients, worker fires timers; both need Postgres (all)",
        )
        parser.add_argument("--data", help="directory for everything the site keeps (./data)")
        parser.add_argument(
            "--demo", action="store_true", help="deploy the examples and create a few instances"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        os.umask(0o077)  # what the site keeps is nobody else's business
        settings.NODE_ROLE = options["role"]
        try:
            if options["role"] == "worker":
                self._work(options["host"], options["port"])
            else:
                if options["role"] == "web" and not _has_postgres():
                    raise CommandError("--role web needs Postgres: set DATABASE_URL")
                with only_server(settings.DATA_DIR, is_shared=_has_postgres()) as record:
                    port = WEB_PORT if options["port"] is None else options["port"]
                    host = options["host"] or "127.0.0.1"
                    self._serve(record, host, port, with_demo=options["demo"])
        except (AlreadyRunning, server.CannotListen, databases.DatabaseUnusable) as exc:
            raise CommandError(str(exc)) from exc

    def _work(self, host: str | None, port: int | None) -> None:
        from statebacked_site import worker

        given_host, given_port = settings.WORKER_LISTEN
        settings.WORKER_LISTEN = (host or given_host, given_port if port is None else port)
        try:
            worker.check_settings()
        except worker.CannotHost as exc:
            raise CommandError(str(exc)) from exc
        databases.check_usable(settings.DATABASE)
        with databases.only_one_at_a_time():
            call_command("migrate", interactive=False, verbosity=0)

        def on_ready() -> None:
            self.stdout.write(welcome.worker_start(settings.NODE_ADDRESS or ""))
            self.stdout.flush()

        sys.exit(worker.run(on_ready))

    def _serve(self, record: RunningServer, host: str, port: int, *, with_demo: bool) -> None:
        listener = server.bind(host, port)
        _set_public_address(host, listener.getsockname()[1])
        databases.check_usable(settings.DATABASE)
        with databases.only_one_at_a_time():
            call_command("migrate", interactive=False, verbosity=0)
            text = _welcome_text()

        def on_ready() -> None:
            record.announce(settings.PUBLIC_URL)
            self.stdout.write(text)
            self.stdout.flush()
            if with_demo:
                demo.start(self.stdout.write)

        server.serve(listener, on_ready)


def _has_postgres() -> bool:
    return isinstance(settings.DATABASE, str)


def _set_public_address(host: str, port: int) -> None:
    """Tell the settings the address that is served, unless STATEBACKED_URL says another one."""
    if settings.PUBLIC_URL_GIVEN is None:
        name = "127.0.0.1" if host in ANY_ADDRESS else host
        settings.PUBLIC_URL = f"http://{f'[{name}]' if ':' in name else name}:{port}"
        settings.CSRF_TRUSTED_ORIGINS = [settings.PUBLIC_URL]
    if host not in ANY_ADDRESS:
        settings.ALLOWED_HOSTS.append(f"[{host}]" if ":" in host else host)


def _welcome_text() -> str:
    """Create the first user and org if there are none, and return what to print."""
    from authz.firstrun import ensure_first_org

    site = welcome.Site(settings.PUBLIC_URL, settings.DATA_DIR, settings.BASE_DIR / "data")
    python = welcome.python_to_show()
    first = ensure_first_org()
    if first.sign_in_path is None:
        return welcome.later_start(site, python)
    return welcome.first_start(
        site, sign_in_path=first.sign_in_path, org_id=first.org.public_id, python=python
    )


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65_535:
        raise ArgumentTypeError(f"{text} is no port: 0 to 65535")
    return int(text)
