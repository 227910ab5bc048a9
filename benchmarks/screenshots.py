"""Make the pictures of the README from a real campaign: its report, and its terminal.

    script -qefc 'pytest --autoresearch --iterations 30' night.txt   # or: pytest … | tee night.txt
    python benchmarks/screenshots.py --tag main --terminal night.txt --out docs/images

The report is rendered from the campaign's ledger, the terminal from what it printed; both are
photographed in headless Chromium. Nothing is made up, so the pictures change only with a campaign.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pytest_autoresearch.ledger import Ledger
from pytest_autoresearch.records import SlotRecord
from pytest_autoresearch.reporting import html

WIDTH, COLUMNS = 1200, 146
TERMINAL = """<!doctype html><meta charset="utf-8"><style>body {{ margin: 0; background: #14171c;
color: #e6e8ec }} pre {{ margin: 14px 18px; font: 13px/1.45 monospace; white-space: pre-wrap }}
{stylesheet}</style><pre>{code}</pre>"""
FRAME = """<!doctype html><style>body {{ margin: 0 }} iframe {{ border: 0; width: 100vw;
height: 100vh }}</style><iframe src="{page}#s{row}"></iframe>"""


def shoot(page: Path, picture: Path, height: int, dark: bool = False) -> None:
    """Save what Chromium shows of a page in a window of that height."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium here; on Debian: apt install chromium")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}",
                f"--screenshot={picture}", page.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    print(f"{picture}: {picture.stat().st_size:,} bytes")


def excerpt(printed: str, command: str, lines: int) -> list[str]:
    """Return what tells most of a terminal's lines: how it began, and the summary at the end.

    Args:
        printed: As captured; what a live line painted over is left out, as are pytest's own header
            and the names of written files.
        command: Shown at the top.
        lines: Of the beginning, at most.
    """
    shown = [line.rpartition("\r")[2] for line in printed.replace("\r\n", "\n").split("\n")]
    shown = [line for line in shown if "generated xml file" not in line and line[:4] != "  … "]
    start = next((i for i, line in enumerate(shown) if line.startswith("autoresearch: ")), 0)
    end = max((i for i, line in enumerate(shown) if "= autoresearch =" in line), default=len(shown))
    night = shown[start : min(end, start + lines)]
    rest = ["⋮", ""] if end > start + lines else []
    return [f"$ {command}", *night, *rest, *"\n".join(shown[end:]).rstrip().split("\n")]


def terminal_page(lines: list[str]) -> tuple[str, int]:
    """Return a terminal's lines as a page, colours kept, and how many rows they take."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, force_terminal=True, file=io.StringIO())
    for line in lines:
        console.print(Text.from_ansi(line), overflow="fold", highlight=False)
    rows = console.export_text(clear=False).count("\n")
    return console.export_html(code_format=TERMINAL), rows


def telling(slots: list[SlotRecord]) -> SlotRecord | None:
    """Return the kept slot of the largest gain."""
    keeps = [slot for slot in slots if slot.verdict == "keep"]
    return max(keeps, key=lambda slot: slot.gain or 0.0, default=None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(), help="of the project; default: here")
    parser.add_argument("--tag", required=True, help="the campaign")
    parser.add_argument("--terminal", type=Path, help="what its terminal printed")
    parser.add_argument("--command", default="pytest --autoresearch", help="shown above that")
    parser.add_argument("--lines", type=int, default=24, help="of its beginning, at most")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder")
    options = parser.parse_args()
    if not Ledger.exists(options.root, options.tag):
        sys.exit(f"no campaign {options.tag!r} in {options.root.absolute()}; give --root, --tag")
    ledger = Ledger.open(options.root, options.tag)
    slots = ledger.slots()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        page = Path(temporary) / "report.html"
        html.write(page, slots, ledger.champions(), html.gather(ledger), live=False)
        for dark, name in ((False, "report-light"), (True, "report-dark")):
            shoot(page, options.out / f"{name}.png", 1190, dark)
        if keep := telling(slots):
            frame = Path(temporary) / "trial.html"  # headless Chromium paints no scrolled page
            frame.write_text(FRAME.format(page=page.as_uri(), row=keep.id))
            shoot(frame, options.out / "report-trial.png", 620)
        if options.terminal:
            text = options.terminal.read_text(encoding="utf-8", errors="replace")
            shown, rows = terminal_page(excerpt(text, options.command, options.lines))
            page.write_text(shown, encoding="utf-8")
            shoot(page, options.out / "terminal.png", 28 + round(18.85 * rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
