"""Writes font_widths.json from the fonts that the pages ship.

Run it as `python -m machines.flow.measure_fonts`.

Needs fontTools with brotli, which only development installs. A test compares the file with the
fonts, so that a new font cannot come without new widths.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fontTools.ttLib import TTFont
from fontTools.varLib.instancer import instantiateVariableFont

FONTS = Path(__file__).resolve().parents[2] / "static" / "site" / "fonts"
TARGET = Path(__file__).parent / "font_widths.json"
SANS_WEIGHTS = (400, 500, 600)


def measure() -> dict[str, Any]:
    """Advance widths in thousandths of the font size.

    `sans`: weight → character → width. `mono`: the characters of the font, and their one width.
    """
    sans = {str(weight): _advances(FONTS / "inter.woff2", weight) for weight in SANS_WEIGHTS}
    mono = _advances(FONTS / "jetbrains-mono.woff2", 400)
    spacing = {char: width for char, width in mono.items() if width > 0}
    [width] = set(spacing.values())
    return {"sans": sans, "mono": {"characters": "".join(spacing), "width": width}}


def _advances(path: Path, weight: int) -> dict[str, int]:
    font = instantiateVariableFont(TTFont(path), {"wght": weight})
    metrics, units = font["hmtx"], font["head"].unitsPerEm
    return {
        chr(code): round(metrics[glyph][0] * 1000 / units)
        for code, glyph in sorted(font.getBestCmap().items())
        if chr(code).isprintable()
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(measure(), ensure_ascii=False, separators=(",", ":")) + "\n")
