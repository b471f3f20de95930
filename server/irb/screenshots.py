"""Screenshots of pages and the PDF of the packet, by a headless Chromium under Playwright.

Only this command needs Playwright and Pillow, so they are imported when a screenshooter is opened.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from embeddings.errors import RootnoteError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NEEDED = "the packet needs Playwright and Pillow; run `pip install 'rootnote[packet]'`."
BROWSER = (
    "the packet needs Chromium; install it (Debian: apt install chromium), set ROOTNOTE_CHROMIUM to its path, or run "
    "`python -m playwright install chromium`."
)
KNOWN = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--disable-gpu", "--disable-background-networking", "--mute-audio", "--font-render-hinting=none")
TIMEOUT_MS = 60_000.0
COLOURS = 64  # pages have few colours: sharp text at a third of the size of a JPEG

Width = Literal["laptop", "phone"]
# Width and height of the window; a longer page is captured completely. No content is wider than `SHOWN`, so the empty
# margins of a laptop's window are cut off.
WINDOWS: dict[Width, tuple[int, int]] = {"laptop": (1280, 560), "phone": (390, 640)}
SHOWN = 700
# The bottom of the last element of a page, with a margin.
BOTTOM = """() => {
  const parts = [...document.querySelectorAll("main > *, footer > *")].map((part) => part.getBoundingClientRect());
  const bottoms = parts.filter((part) => part.height > 1).map((part) => part.bottom + window.scrollY);
  return Math.min(Math.ceil(Math.max(...bottoms)) + 24, document.documentElement.scrollHeight);
}"""
# Each page is opened as on a first visit, without anything that the page before stored in the browser.
FORGET = "try { sessionStorage.clear(); localStorage.clear(); } catch (forbidden) {}"
HEADER = (
    '<div style="font: 7pt sans-serif; color: #555; width: 100%; padding: 0 18mm; display: flex; '
    'justify-content: space-between"><span>{left}</span><span>{right}</span></div>'
)
PAGES = '<span class="pageNumber"></span> / <span class="totalPages"></span>'


@dataclass
class Screenshooter:
    """An open browser with one page, which the caller controls."""

    browser: Browser
    page: Page

    def shoot(self, width: Width) -> tuple[bytes, int, int]:
        """A picture of the complete page in a window of that width: (PNG, width, height in pixels)."""
        across, down = WINDOWS[width]
        self.page.set_viewport_size({"width": across, "height": down})
        shown = min(across, SHOWN)
        tall = int(self.page.evaluate(BOTTOM))
        clip = {"x": (across - shown) / 2, "y": 0, "width": shown, "height": tall}
        taken = self.page.screenshot(
            type="png",
            full_page=True,
            animations="disabled",
            clip=clip,  # type: ignore[arg-type]
        )
        return _with_few_colours(taken), shown, tall

    def print(self, html: str, path: Path, header: str, footer: str) -> None:
        """Print a self-contained document as a tagged PDF with bookmarks and page numbers."""
        context = self.browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.set_content(html, wait_until="load", timeout=TIMEOUT_MS)
        page.pdf(
            path=path,
            format="A4",
            print_background=True,
            prefer_css_page_size=True,
            display_header_footer=True,
            header_template=HEADER.format(left=header, right=""),
            footer_template=HEADER.format(left=footer, right=PAGES),
            tagged=True,
            outline=True,
        )
        context.close()


def _with_few_colours(png: bytes) -> bytes:
    """The picture with a palette: frequent colours stay exact, the others become the nearest of these."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    packed = pixels.astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32)
    colours, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    levels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1)
    palette = levels[np.argsort(-counts, kind="stable")[:COLOURS]]
    nearest = np.abs(levels[:, None] - palette[None]).sum(axis=2).argmin(axis=1).astype(np.uint8)
    reduced, small = Image.fromarray(nearest[places].reshape(packed.shape)), io.BytesIO()
    reduced.putpalette(palette.astype(np.uint8).tobytes())
    reduced.save(small, "PNG", optimize=True)
    return small.getvalue()


def chromium_path() -> str | None:
    """ROOTNOTE_CHROMIUM, or the system's Chromium; None: Playwright's own."""
    return os.environ.get("ROOTNOTE_CHROMIUM") or next(filter(None, map(shutil.which, KNOWN)), None)


@contextlib.contextmanager
def open_screenshooter() -> Iterator[Screenshooter]:
    """Start the browser.

    Raises:
        RootnoteError: if Playwright or a browser is missing, or the browser fails.
    """
    try:
        import PIL  # noqa: F401 (so that a missing package is reported at once)
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError:
        raise RootnoteError(NEEDED) from None
    with contextlib.ExitStack() as stack:
        try:
            playwright = stack.enter_context(sync_playwright())
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=list(FLAGS))
        except Error:
            raise RootnoteError(BROWSER) from None
        stack.callback(browser.close)
        context = browser.new_context(color_scheme="light", reduced_motion="reduce")
        context.set_default_timeout(TIMEOUT_MS)
        context.add_init_script(FORGET)
        try:
            yield Screenshooter(browser, context.new_page())
        except Error as error:
            line = error.message.strip().splitlines()[0] if error.message.strip() else "no message"
            raise RootnoteError(
                f"Chromium failed while taking the pictures ({line}); run the command again."
            ) from error
