"""`python3 manage.py bench`: starts a site, measures it and prints one table.

Server and load generator share the machine. Events/s and latency mean something on a quiet machine
only, so the table says how much CPU other programs took. CPU per event is the figure to compare: on
a busy machine with shared cores and caches it gets worse too, but at most by half or so.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from bench import large, live, nodes, pages, sockets, timers, workloads
from bench.databases import DATABASES
from bench.load import LoadFailed, Measurement
from bench.report import EVENTS, Memory, Report, table
from bench.site import PROJECT_ROOT, BenchSite, CannotStart, running_site
from bench.workloads import FULL, QUICK, Scale, WrongResult

CPU_MS_MAX = 0.25  # of the server per event; what an event costs here is about half of it
CHECK_SCALE = Scale(warmup_s=2, duration_s=3, creates=workloads.INSTANCES)
CHECK_TRIES = 3  # noise makes it worse, never better: the best one counts


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 1 if the check failed or the site did not do what it answered."""
    options = _parse(argv)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "statebacked_site.settings")
    scale = QUICK if options.quick else FULL
    databases = DATABASES if options.database == "both" else (options.database,)
    try:
        if options.check_cpu:
            with running_site(options.directory, databases[0]) as site:
                return _check_cpu(site)
        if options.sockets:
            figures = sockets.measure(options.directory, databases[0], options.sockets, scale)
        elif options.timers:
            figures = timers.measure(options.directory, options.timers, scale)
        elif options.live:
            figures = live.measure(options.directory, databases[0], scale)
        elif options.pages:
            figures = pages.measure(options.directory, databases[0], scale)
        elif options.nodes > 1:
            figures = nodes.measure(options.directory, options.nodes, scale)
        elif options.load:
            figures = large.measure(options.directory, databases, options.load, options.keep)
        else:
            figures = _measure_all(options.directory, databases, scale)
    except (CannotStart, LoadFailed, WrongResult) as error:
        print(f"The benchmark failed: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure throughput, latency and CPU per event.")
    parser.add_argument("--quick", action="store_true", help="a rough look in 30 seconds")
    parser.add_argument(
        "--database",
        choices=(*DATABASES, "both"),
        default="sqlite",
        help="Postgres comes from the wheel, with fsync on (sqlite)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check-cpu",
        action="store_true",
        help=f"only fail if an event costs more than {CPU_MS_MAX} ms of CPU",
    )
    what.add_argument(
        "--nodes", type=int, default=1, metavar="N", help="so many servers on one Postgres"
    )
    what.add_argument(
        "--load",
        type=int,
        nargs="?",
        const=large.INSTANCES,
        metavar="N",
        help=f"lists and events of a database with N instances ({large.INSTANCES:,})",
    )
    what.add_argument(
        "--sockets",
        type=int,
        nargs="?",
        const=sockets.SOCKETS,
        metavar="N",
        help=f"N subscribers of {workloads.INSTANCES:,} instances ({sockets.SOCKETS:,})",
    )
    what.add_argument(
        "--timers",
        type=int,
        nargs="?",
        const=timers.BURST,
        metavar="N",
        help=f"N timers due in one second, through two workers one of which is killed"
        f" ({timers.BURST:,})",
    )
    what.add_argument(
        "--live",
        action="store_true",
        help="what an open dashboard and subscribers cost the events",
    )
    what.add_argument(
        "--pages",
        action="store_true",
        help=f"an instance's page in Chromium: {pages.TRANSITIONS:,} transitions, and"
        f" {pages.EVENTS_PER_S} events/s",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="with --load: leave the site up until Ctrl-C, to look at",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    parser.add_argument(
        "--directory",
        type=Path,
        default=PROJECT_ROOT / "build",
        help="on the disk to measure; a fresh data directory is made in it (build)",
    )
    return parser.parse_args(argv)


def _measure_all(directory: Path, databases: tuple[str, ...], scale: Scale) -> Any:
    reports = []
    for kind in databases:
        with running_site(directory, kind) as site:
            reports.append(_measure(site, scale, directory))
    print(table(reports))
    return [one.as_json() for one in reports]


def _check_cpu(site: BenchSite) -> int:
    workloads.deploy_machines(site)
    workloads.create_instances(site, CHECK_SCALE)
    best = float("inf")
    for _ in range(CHECK_TRIES):
        best = min(best, workloads.many_instances(site, CHECK_SCALE).server_ms_each)
        if best <= CPU_MS_MAX:
            print(f"An event costs {best:.3f} ms of CPU ({CPU_MS_MAX} are allowed).")
            return 0
    print(f"An event costs {best:.3f} ms of CPU; {CPU_MS_MAX} are allowed.", file=sys.stderr)
    return 1


def _measure(site: BenchSite, scale: Scale, directory: Path) -> Report:
    database = site.database
    report = Report(
        database.label, database.durability, _file_system(directory), os.cpu_count() or 1
    )

    def note(name: str, measurement: Measurement) -> None:
        print(f"{database.label}, {name}: {measurement.per_second:,.0f}/s", file=sys.stderr)
        report.measurements[name] = measurement

    workloads.deploy_machines(site)
    note("creates, 32 connections", workloads.create_instances(site, scale))
    # Once before what is measured: the just-in-time compilers have seen everything then.
    workloads.many_instances(site, QUICK)
    server_before, runners_before = site.memory_bytes()
    note(EVENTS, workloads.many_instances(site, scale))
    server_after, runners_after = site.memory_bytes()
    report.memory = Memory(
        events=report.measurements[EVENTS].acknowledged,
        server_before=server_before,
        runners_before=runners_before,
        server_after=server_after,
        runners_after=runners_after,
    )
    note("one event at a time", workloads.one_connection(site, scale))
    note("one hot instance", workloads.one_hot_instance(site, scale))
    note("5 KB of context", workloads.big_context(site, scale))
    report.http = workloads.http_only(site, scale)
    report.refused = workloads.refused_events(site, scale)
    report.lateness = workloads.timers(site)
    return report


def _file_system(directory: Path) -> str:
    """The kind of file system that `directory` lies on: on some, a flush costs nothing."""
    found = ("/", "unknown")
    resolved = str(directory.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount_point, kind = line.split()[:3]
        inside = resolved == mount_point or resolved.startswith(mount_point.rstrip("/") + "/")
        if inside and len(mount_point) >= len(found[0]):
            found = (mount_point, kind)
    return found[1]


if __name__ == "__main__":
    sys.exit(main())
