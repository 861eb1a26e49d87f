"""The picture of `maporl watch` in the docs: two tiny models debate, a person steps in.

    python scripts/watch_picture.py [--picture docs/images/watch.png]

Starts the command, decides as a person would (an edit, then a message sent back with a note), and
photographs the page in Chromium: needs selenium, and from Debian chromium and chromium-driver.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

FLAGS = ("--index", "0", "--seed", "3", "--turns", "2", "--port", "0", "--who", "Ann")


def main() -> None:
    """Start the command, step in, photograph the page, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("docs/images/watch.png"))
    picture = parser.parse_args().picture.resolve()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "maporl_agents.cli", "watch", *FLAGS, "--out", "watched"]
        watched = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            assert watched.stdout is not None
            found = next(filter(None, (re.search(r"http\S+", line) for line in watched.stdout)))
            step_in(found[0])
            photograph(found[0], picture)
        finally:
            watched.send_signal(signal.SIGINT)
            watched.wait(120)
    print(f"wrote {picture}")


def step_in(url: str) -> None:
    """Edit the first message, send the second one back, and wait for its second try."""
    until(url, lambda page: page.count('value="approve"') == 2)
    edited = "1 * 2 = 2 , 1 * 9 = 9 , \\boxed{ 11 }"
    act(url, action="edit", n=0, tries=1, text=edited, who="Ann")
    note = "Look up the price of the kite again."
    act(url, action="send_back", n=1, tries=1, note=note, who="Ann")
    until(url, lambda page: "try 2" in page)


def act(url: str, **fields: object) -> None:
    """Send a decision."""
    urlopen(f"{url}act", urlencode(fields).encode()).read()


def until(url: str, ready: Callable[[str], bool]) -> None:
    """Wait until the page is as wanted, for ten minutes at most."""
    for _ in range(1_200):
        if ready(urlopen(url).read().decode()):
            return
        time.sleep(0.5)
    raise TimeoutError("the models did not speak")


def photograph(url: str, picture: Path) -> None:
    """Save the page in the width of a laptop's half."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(option)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.set_window_size(820, 1_000)
        browser.get(url)
        for part in browser.find_elements("css selector", "details[data-key=s] > summary"):
            part.click()
        height = browser.execute_script("return document.documentElement.scrollHeight")
        size = {"width": 820, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        picture.parent.mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(picture))
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
