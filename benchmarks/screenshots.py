"""Make the pictures of the README from a real campaign: its report and its terminal.

    script -qefc 'stty cols 118; pytest --autoresearch --iterations 30' session.txt
    python benchmarks/screenshots.py --tag main --terminal session.txt --out docs/images

The report is rendered from the campaign's ledger, the terminal from its captured output; both are
captured in headless Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pytest_autoresearch.core.records import Attempt
from pytest_autoresearch.ledger.store import Ledger
from pytest_autoresearch.report import html

WIDTH = 1200
CHARACTER, ROW, MARGIN = 7.83, 18.85, 36
ERASED = "\r\x1b[2K"
"""Sent by the live view before it repaints a worker's line."""

TERMINAL = """<!doctype html><meta charset="utf-8"><style>body {{ margin: 0; background: #14171c;
color: #e6e8ec }} pre {{ margin: 14px 18px; font: 13px/1.45 monospace; white-space: pre-wrap }}
{stylesheet}</style><pre>{code}</pre>"""
FRAME = """<!doctype html><style>body {{ margin: 0 }} iframe {{ border: 0; width: 100vw;
height: 100vh }}</style><iframe src="{page}#s{row}"></iframe>"""


def shoot(page: Path, picture: Path, height: int, dark: bool = False, width: int = WIDTH) -> None:
    """Save a screenshot of a page in a window of that size."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("Chromium is not installed; on Debian: apt install chromium")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                f"--user-data-dir={profile}", f"--window-size={width},{height}",
                f"--screenshot={picture}", page.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    print(f"{picture}: {picture.stat().st_size:,} bytes")


def excerpt(printed: str, command: str, lines: int) -> list[str]:
    """Return the beginning and the summary of a session's terminal output.

    Args:
        printed: Captured output without xdist; pytest's header and lines of `script` are left out.
        command: Shown at the top.
        lines: Of the beginning, at most; the live line at the cut follows them.
    """
    sent = [line.split(ERASED) for line in printed.replace("\r\n", "\n").split("\n")]
    sent = [frames for frames in sent if "generated xml" not in frames[-1]]
    shown = [frames[-1].rpartition("\r")[2] for frames in sent]
    start = next((i for i, line in enumerate(shown) if line.startswith("autoresearch: ")), 0)
    end = max((i for i, line in enumerate(shown) if "= autoresearch =" in line), default=len(shown))
    done = next((i for i, line in enumerate(shown) if line.startswith("Script done")), len(shown))
    cut = min(end, start + lines)
    rest: list[str] = []
    if cut < end:
        running = [frame for frame in sent[cut][:-1] if "training" in frame]
        rest = [*running[len(running) // 2 :][:1], "⋮", ""]
    summary = "\n".join(shown[end:done]).rstrip().split("\n")
    return [f"$ {command}", *shown[start:cut], *rest, *summary]


def terminal_page(lines: list[str], columns: int) -> tuple[str, int]:
    """Return a terminal's lines as a page with colours, and their number of rows."""
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    console = Console(record=True, width=columns, force_terminal=True, file=io.StringIO())
    for line in lines:
        console.print(Text.from_ansi(line), overflow="fold", highlight=False)
    rows = console.export_text(clear=False).count("\n")
    return console.export_html(code_format=TERMINAL, theme=MONOKAI), rows


def largest_keep(attempts: list[Attempt]) -> Attempt | None:
    """Return the kept attempt of the largest gain."""
    keeps = [attempt for attempt in attempts if attempt.verdict == "keep"]
    return max(keeps, key=lambda attempt: attempt.gain or 0.0, default=None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(), help="of the project; default: here")
    parser.add_argument("--tag", required=True, help="the campaign")
    parser.add_argument("--terminal", type=Path, help="captured terminal output")
    parser.add_argument("--command", default="pytest --autoresearch", help="shown above that")
    parser.add_argument("--columns", type=int, default=118, help="of that terminal")
    parser.add_argument("--lines", type=int, default=24, help="of the beginning, at most")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder")
    options = parser.parse_args()
    if not Ledger.exists(options.root, options.tag):
        sys.exit(f"no campaign {options.tag!r} in {options.root.absolute()}; give --root, --tag")
    ledger = Ledger.open(options.root, options.tag)
    attempts = ledger.attempts()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        page = Path(temporary) / "report.html"
        html.write(page, attempts, ledger.champions(), html.gather(ledger), live=False)
        for dark, name in ((False, "report-light"), (True, "report-dark")):
            shoot(page, options.out / f"{name}.png", 1190, dark)
        if keep := largest_keep(attempts):
            frame = (
                Path(temporary) / "attempt.html"
            )  # headless Chromium does not draw a scrolled page
            frame.write_text(FRAME.format(page=page.as_uri(), row=keep.id))
            shoot(frame, options.out / "report-attempt.png", 620)
        if options.terminal:
            text = options.terminal.read_bytes().decode(errors="replace")
            lines = excerpt(text, options.command, options.lines)
            shown, rows = terminal_page(lines, options.columns)
            page.write_text(shown, encoding="utf-8")
            width, height = MARGIN + CHARACTER * options.columns, 28 + ROW * rows
            shoot(page, options.out / "terminal.png", round(height), width=round(width))
    return 0


if __name__ == "__main__":
    sys.exit(main())
