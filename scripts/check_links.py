"""Asks for every address that the documentation links to. No test runs it: it needs the network.

    python scripts/check_links.py

Links inside of the documentation are checked by `make docs`. Standard library only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?:\]\(|<)(https?://[^)>\s]+)[)>]")
LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1)\b")
TIMEOUT_S = 20.0


def addresses(text: str) -> set[str]:
    """Return the addresses of a page's links, without those of this machine."""
    return {address for address in LINK.findall(text) if not LOCAL.match(address)}


def fault(address: str) -> str | None:
    """Return why an address gives no page, or None if it gives one."""
    request = urllib.request.Request(address, headers={"User-Agent": "segzero check_links"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return None
    except (urllib.error.URLError, OSError) as error:
        return f"{address}: {error}"


def main() -> int:
    """Print what is wrong with the links of all pages; the exit code is 1 if any is."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    found = sorted(set().union(*(addresses((ROOT / name).read_text("utf-8")) for name in listed)))
    with ThreadPoolExecutor(8) as pool:
        faults = [text for text in pool.map(fault, found) if text]
    print("\n".join([*faults, f"{len(found)} addresses, {len(faults)} without a page"]))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
