"""Draws a machine's source file as an SVG or as Mermaid, without a server."""

import asyncio
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from instances.runtime.bundle import BundleConverter
from instances.runtime.errors import InvalidBundle, RunnerUnavailable
from instances.runtime.settings import RuntimeSettings
from machines.flow import FlowError, Graph, describe, draw_standalone
from machines.flow.mermaid import to_mermaid
from statebacked_site import bundling

DIRECTIONS = ("TB", "LR", "TB/LR", "LR/TB")
SUFFIXES = (".svg", ".mmd", ".json")


class Command(BaseCommand):
    help = "Draw a machine's source file as an SVG (.svg), Mermaid (.mmd) or its graph (.json)."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="TypeScript or JavaScript of the machine")
        parser.add_argument(
            "-o",
            "--output",
            type=Path,
            help="where to write it, the suffix says what (beside the file as .svg; - for stdout)",
        )
        parser.add_argument("--theme", choices=("light", "dark"), default="light")
        parser.add_argument(
            "--direction",
            choices=DIRECTIONS,
            help="of the flow: top to bottom, left to right, or one outside and one inside"
            " of nested states (what fits best)",
        )
        parser.add_argument(
            "--fold",
            action="append",
            default=[],
            metavar="STATE",
            help="draw this state closed, by its path: fulfilment.payment; may be repeated",
        )
        parser.add_argument("--data", help="data directory of the site (./data)")

    def handle(self, *_args: Any, **options: Any) -> None:
        source: Path = options["file"]
        output: Path = options["output"] or source.with_suffix(".svg")
        suffix = ".svg" if str(output) == "-" else output.suffix
        if suffix not in SUFFIXES:
            raise CommandError(f"{output} must end in one of {', '.join(SUFFIXES)}")
        try:
            graph = _graph_of(source)
            unknown = set(options["fold"]) - set(graph.paths.values())
            if unknown:
                raise CommandError(f"there is no state {', '.join(sorted(unknown))}")
            text = _text(graph, suffix, options)
        except (bundling.CannotBundle, InvalidBundle, RunnerUnavailable, FlowError) as exc:
            raise CommandError(str(exc)) from exc
        if str(output) == "-":
            self.stdout.write(text)
            return
        output.write_text(text, "utf-8")
        self.stdout.write(
            f"{output}: {graph.name} with {len(graph.states) - 1} states"
            f" and {len(graph.transitions)} transitions"
        )


def _graph_of(source: Path) -> Graph:
    _, esbuild = RuntimeSettings.find_programs(settings.BASE_DIR)
    converted = asyncio.run(BundleConverter(esbuild).convert(bundling.bundle(source)))
    return describe(converted.code)


def _text(graph: Graph, suffix: str, options: dict[str, Any]) -> str:
    match suffix:
        case ".mmd":
            return to_mermaid(graph)
        case ".json":
            return graph.encode().decode()
        case _:
            return draw_standalone(
                graph, options["theme"], folded=options["fold"], direction=options["direction"]
            )
