"""What tests read out of a page and out of its figures."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """Every tag, its attributes, and text outside scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.words, self._open = [], [], [], []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attrs]
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if not self._open or self._open[-1] not in ("script", "style"):
            self.words.append(data)


def assert_needs_nothing_but_itself(page):
    """No other file, no network: nothing is loaded, linked or sent anywhere."""
    parsed = Page(page)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(parsed.tags)
    for tag, name, value in parsed.attributes:
        assert name not in ("src", "srcset", "data", "action", "poster"), (tag, name)
        if name in ("href", "xlink:href"):
            assert value.startswith("#"), (tag, name, value)
    outside = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", page)
    assert "http://" not in outside and "https://" not in outside and "@import" not in outside
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert "default-src 'none'" in page


def groups(svg, name):
    """How many groups of that class a figure has; it must be well-formed."""
    return len([each for each in ElementTree.fromstring(svg).iter(f"{SVG}g") if each.get("class") == name])
