"""Bundle the machines of `machines/` for the tests of the harness, as an upload would.

Each machine in several variants: with XState left to the platform, and with a copy of its own of
several versions. Run `python -m tests.harness.bundles` before running a *.test.ts by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from instances.runtime.build import PLATFORM_MODULES

PROJECT_ROOT = Path(__file__).resolve().parents[2]
MACHINES = Path(__file__).parent / "machines"
OUTPUT = PROJECT_ROOT / "build" / "test-bundles"


@dataclass(frozen=True)
class Variant:
    """One way to bundle a machine."""

    name: str
    source: str
    major: int
    xstate: str | None = None  # the package in node_modules to bundle; None: the platform's
    defines: dict[str, str] = field(default_factory=dict)


PREDICTABLE = {"PREDICTABLE": "true", "BUNDLED": "false"}
LEGACY = {"PREDICTABLE": "false", "BUNDLED": "false"}
OWN_PREDICTABLE = {"PREDICTABLE": "true", "BUNDLED": "true"}
OWN_LEGACY = {"PREDICTABLE": "false", "BUNDLED": "true"}

VARIANTS = (
    Variant("features 5", "features5.mjs", 5),
    Variant("features 5, own 5.19", "features5.mjs", 5, "xstate-5.19"),
    Variant("features 5, own 5.33", "features5.mjs", 5, "xstate"),
    Variant("features 4", "features4.mjs", 4, None, PREDICTABLE),
    Variant("features 4, legacy order", "features4.mjs", 4, None, LEGACY),
    Variant("features 4, own 4.26", "features4.mjs", 4, "xstate-4.26", OWN_PREDICTABLE),
    Variant("features 4, own 4.33", "features4.mjs", 4, "xstate-4.33", OWN_PREDICTABLE),
    Variant("features 4, own 4.33, legacy order", "features4.mjs", 4, "xstate-4.33", OWN_LEGACY),
    Variant("features 4, own 4.38", "features4.mjs", 4, "xstate4", OWN_PREDICTABLE),
    Variant("attack", "attack.mjs", 5),
    Variant("persistent 5", "persistent5.mjs", 5),
    Variant("persistent 5, own 5.19", "persistent5.mjs", 5, "xstate-5.19"),
    Variant("persistent 4", "persistent4.mjs", 4, None, PREDICTABLE),
    Variant("persistent 4, legacy order", "persistent4.mjs", 4, None, LEGACY),
    Variant("persistent 4, own 4.38", "persistent4.mjs", 4, "xstate4", OWN_PREDICTABLE),
    Variant("endings 5", "endings5.mjs", 5),
    Variant("endings 4", "endings4.mjs", 4, None, PREDICTABLE),
    Variant("initial sends 4", "initial_sends4.mjs", 4, None, PREDICTABLE),
    Variant("initial sends 4, legacy order", "initial_sends4.mjs", 4, None, LEGACY),
    Variant("initial sends 4, own 4.38", "initial_sends4.mjs", 4, "xstate4", OWN_PREDICTABLE),
    Variant("initial sends 4, own 4.33", "initial_sends4.mjs", 4, "xstate-4.33", OWN_PREDICTABLE),
)


def bundle_all() -> Path:
    """Bundle every variant; return the directory with `manifest.json` and the bundles.

    A variant whose package is not installed is left out.
    """
    OUTPUT.mkdir(parents=True, exist_ok=True)
    manifest = []
    for number, variant in enumerate(VARIANTS):
        if variant.xstate and not (PROJECT_ROOT / "node_modules" / variant.xstate).is_dir():
            continue
        target = OUTPUT / f"{number}.cjs"
        externals = _bundle(variant, target)
        manifest.append(
            {
                "name": variant.name,
                "machine": variant.source.split(".")[0],
                "major": variant.major,
                "legacy": variant.defines.get("PREDICTABLE") == "false",
                "file": target.name,
                "externals": externals,
            }
        )
    (OUTPUT / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return OUTPUT


def _bundle(variant: Variant, target: Path) -> list[str]:
    esbuild = next((PROJECT_ROOT / "node_modules").glob("@esbuild/*/bin/esbuild"))
    meta = target.with_suffix(".json")
    aliases = [f"--alias:npm:xstate@5={variant.xstate}", f"--alias:npm:xstate={variant.xstate}"]
    subprocess.run(
        [
            esbuild,
            MACHINES / variant.source,
            "--bundle",
            "--format=cjs",
            "--platform=browser",
            '--define:process.env.NODE_ENV="production"',
            *(f"--define:{name}={value}" for name, value in variant.defines.items()),
            *(aliases if variant.xstate else [f"--external:{name}" for name in PLATFORM_MODULES]),
            f"--metafile={meta}",
            f"--outfile={target}",
            "--log-level=warning",
        ],
        env={**os.environ, "NODE_PATH": str(PROJECT_ROOT / "node_modules")},
        check=True,
    )
    inputs = json.loads(meta.read_text())["inputs"]
    return sorted(
        {
            one["path"]
            for entry in inputs.values()
            for one in entry["imports"]
            if one.get("external")
        }
    )


if __name__ == "__main__":
    bundle_all()
