"""The machines that are drawn in tests, described by the real sandbox."""

from __future__ import annotations

import asyncio
import tempfile
from functools import cache
from pathlib import Path

from instances.runtime.build import build_harness
from instances.runtime.bundle import BundleCode, BundleConverter
from instances.runtime.settings import RuntimeSettings
from machines.flow.extraction import Extractor, build_extractor
from machines.flow.model import Graph
from statebacked_site.bundling import bundle

PROJECT_ROOT = Path(__file__).resolve().parents[3]
CHARTS = sorted((Path(__file__).parent / "charts").glob("*.ts"))
EXAMPLES = sorted((PROJECT_ROOT / "machines" / "examples").glob("*.ts"))
NAMES = [path.stem for path in CHARTS] + [f"example:{path.stem}" for path in EXAMPLES]


@cache
def extractor() -> Extractor:
    deno, esbuild = RuntimeSettings.find_programs(PROJECT_ROOT)
    return Extractor(
        deno=deno,
        harness=build_harness(PROJECT_ROOT),
        script=build_extractor(PROJECT_ROOT, esbuild),
        deno_dir=Path(tempfile.gettempdir()) / "statebacked-flow-tests",
    )


def convert(source: bytes) -> BundleCode:
    _, esbuild = RuntimeSettings.find_programs(PROJECT_ROOT)
    return asyncio.run(BundleConverter(esbuild).convert(source)).code


def describe_source(source: str) -> Graph:
    """The graph of an ES module."""
    return extractor().describe(convert(source.encode()))


@cache
def graph_of(name: str) -> Graph:
    """One of NAMES; bundled as for a deployment, minified."""
    stem = name.removeprefix("example:")
    paths = EXAMPLES if name.startswith("example:") else CHARTS
    [path] = [path for path in paths if path.stem == stem]
    return extractor().describe(convert(bundle(path)))
