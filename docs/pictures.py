"""Makes report.png, report-narrow.png and compare.png beside this file: what a browser shows of the pages of the demos.

    target/release/selftrace demo
    target/release/selftrace demo --out reports/demo-wish-first --order wish-first
    target/release/selftrace compare reports/demo reports/demo-wish-first
    python docs/pictures.py [REPORTS]

REPORTS is the folder with the three, `reports` unless given. Needs chromium, and Pillow, which makes the pictures small.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
#: Picture to the folder of its page, width, height and whether it is dark.
PICTURES = {
    "report.png": ("demo", 1280, 1240, False),
    "report-narrow.png": ("demo", 390, 1240, True),
    "compare.png": ("demo-vs-demo-wish-first", 1280, 900, False),
}


def shoot(page: Path, out: Path, width: int, height: int, dark: bool) -> None:
    """What a window of this size shows of a page, in at most 128 colours."""
    with tempfile.TemporaryDirectory() as home:
        subprocess.run(
            [
                "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={home}", f"--window-size={width},{height}", f"--screenshot={out}",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"file://{page.resolve()}",
            ],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
    picture = Image.open(out).convert("RGB")
    few = picture.quantize(128, method=Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
    few.save(out, optimize=True)


if __name__ == "__main__":
    reports = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "reports"
    for name, (folder, *window) in PICTURES.items():
        shoot(reports / folder / "report.html", HERE / name, *window)
        print(HERE / name, (HERE / name).stat().st_size, "bytes")
