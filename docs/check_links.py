"""Whether every link inside a built site leads somewhere, and nothing is loaded from elsewhere.

python docs/check_links.py build/site
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = ("stylesheet", "preload", "icon", "shortcut icon")  # kinds of <link>; others only name an address


class Page(HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.places = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("href") and found.get("rel") in LOADED:
            self.loaded.append(found["href"])


def faults(site):
    """One sentence for every link that leads nowhere, and for everything that is loaded from elsewhere."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    found = []
    for path, page in pages.items():
        here = path.relative_to(site)
        for address in page.loaded:
            parts = urlsplit(address)
            if parts.scheme != "data" and (parts.netloc or not (path.parent / unquote(parts.path)).exists()):
                found.append(f"{here} loads {address}, which is not in the site")
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{here} links to {address}, which is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                found.append(f"{here} links to {address}, which has no such place")
    return found if pages else [f"{site} has no pages"]


if __name__ == "__main__":
    found = faults(Path(sys.argv[1]).resolve())
    print("\n".join(found) or "every link inside the site leads somewhere")
    sys.exit(bool(found))
