"""Migrates the database and serves web, engine and timers in one process."""

import os
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from statebacked_site import databases, demo, server, welcome
from statebacked_site.running import AlreadyRunning, RunningServer, only_server

ANY_ADDRESS = ("0.0.0.0", "::", "")


class Command(BaseCommand):
    help = "Start State Backed: web, engine and timers in one process."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
        parser.add_argument("--port", type=_port, default=8000, help="port (8000; 0: a free one)")
        parser.add_argument("--data", help="directory for everything the site keeps (./data)")
        parser.add_argument(
            "--demo", action="store_true", help="deploy the examples and create a few instances"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        os.umask(0o077)  # what the site keeps is nobody else's business
        try:
            with only_server(settings.DATA_DIR) as record:
                self._serve(record, options["host"], options["port"], with_demo=options["demo"])
        except (AlreadyRunning, server.CannotListen, databases.DatabaseUnusable) as exc:
            raise CommandError(str(exc)) from exc

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
