#!/usr/bin/env python3
"""Turns public-domain books in Debian packages into the text that the quickstart's model is pretrained on.

    python3 scripts/make_quickstart_text.py DEBS OUT      called by scripts/make_quickstart_model, which fills DEBS
    python3 scripts/make_quickstart_text.py --packages    names the packages

DEBS holds NAME_VERSION_ARCH.deb files and, for each, the folder NAME with what is in it. OUT receives train.jsonl,
validation.jsonl ({"text": ...}, plain ASCII prose, no document in both) and sources.md. The same packages give the
same bytes.
"""
import collections
import gzip
import hashlib
import html.parser
import json
import pathlib
import re
import struct
import sys
import typing
import unicodedata
import zlib

DOCUMENT = 4000    # characters, about: a document ends with the paragraph that passes it
HELD_OUT = 1 / 50  # of the documents
TYPOGRAPHY = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "—": " - ", "–": "-",
                            "…": "...", "æ": "ae", "Æ": "Ae", "œ": "oe", "\ufeff": ""})
PROSE = re.compile(r"""[A-Za-z0-9 .,:;?!'"()&%$*/-]+""")
SLUR = re.compile(r"nigg|negro|\binjun|\bdark(y|ies|ey)\b|squaw|half-breed|mulatto|hottentot|\bcoolie|chinam[ae]n"
                  r"|fuck|\bshit|\bcunt|\brap(e|ed|ist)\b|whore|prostitut", re.I)


class Source(typing.NamedTuple):
    package: str
    pattern: str              # of the files in the package
    read: typing.Callable     # path -> sections, each a list of paragraphs
    title: str
    status: str               # why it is in the public domain: its age, or that the package says so


def paragraphs(text):
    """Of plain text: blocks between blank lines, but for those that are indented throughout (verse, tables)."""
    blocks = (block for block in re.split(r"\n\s*\n", text) if re.search(r"^ ?\S", block, re.M))
    return [block for block in blocks if block.strip()]


def book(text):
    """The chapters of a plain-text book, without what Project Gutenberg put around it."""
    text = text.replace("\r", "")
    text = re.split(r"\*\*\* ?START OF[^\n]*\n", text)[-1]
    text = re.split(r"\n\*\*\* ?END OF|\nEnd of (?:the )?Project Gutenberg", text)[0]
    text = re.sub(r"\[[^]]*\] ?|[{}_]", "", text)  # notes, illustrations, underlining
    return [paragraphs(chapter) for chapter in re.split(r"\n(?=(?:CHAPTER|Chapter|ADVENTURE|VOLUME|PART) )", text)]


def plain(path):
    return book(path.read_text("utf-8"))


def jargon(path):
    """An entry's word stands in a line of its own, above the paragraph that explains it."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8").partition(":(TM):")[2].partition("\nPart III")[0]
    text = re.sub(r"\n +", "\n", text)
    text = re.sub(r"\n:([^:\n]+):[^\n]*?(\w+\.)?\n\s*", r"\n\n\1 (\2): ", text).replace(" (): ", ": ")
    return book(text)


def devil(path):
    return book(gzip.decompress(path.read_bytes()).decode("latin-1").partition("\nABASEMENT")[2])


def r_strings(path):
    """An R package's data: objects that are vectors of strings, of each its length and then zlib's stream."""
    sections, rest = [], path.read_bytes()
    while rest:
        stream = zlib.decompressobj()
        data, rest = stream.decompress(rest[4:]), stream.unused_data
        encoding, = struct.unpack_from(">i", data, 14)
        flags, count = struct.unpack_from(">ii", data, at := 18 + encoding)
        assert flags & 255 == 16, "not a vector of strings"
        lines, at = [], at + 8
        for _ in range(count):
            size, = struct.unpack_from(">i", data, at + 4)
            lines.append(data[at + 8:at + 8 + size].decode("utf-8"))
            at += 8 + size
        sections += book("\n".join(lines))
    return sections


def sword(path):
    """A module of the SWORD project: zlib blocks of OSIS XML, which the file beside it (*.?zs) points at."""
    data, index = path.read_bytes(), path.with_name(path.name[:-1] + "s").read_bytes()
    for offset, size, _ in struct.iter_unpack("<III", index):
        if size:
            yield osis(zlib.decompress(data[offset:offset + size]).decode("utf-8"))


def osis(text):
    text = re.sub(r'<(note|title|table|list)\b[^>]*(?<!/)>.*?</\1>', "", text, flags=re.S)
    text = re.sub(r'<hi type="bold">\s*Ver[^<]*</hi>', "", text)          # "Verse 12."
    text = re.sub(r'<div type="x-milestone"[^>]*>', "", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"<(div|chapter|lg)\b[^>]*>", "\n\n", text)
    text = re.sub(r"<[^>]*>", "", text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return re.sub(r" *\([^()]*\d+:\d[^()]*\)", "", text).split("\n\n")   # "(Romans 5:8)"


class Page(html.parser.HTMLParser):
    """The paragraphs of an HTML page: no code, tables or headings."""
    SKIPPED = {"pre", "script", "style", "table", "svg", "title", "h1", "h2", "h3", "h4"}
    INLINE = {"a", "b", "i", "em", "strong", "tt", "code", "u", "font", "span"}

    def __init__(self, path):
        super().__init__()
        self.paragraphs, self.depth = [""], 0
        self.feed(path.read_text("utf-8", "replace"))

    def handle_starttag(self, tag, attributes):
        self.depth += tag in self.SKIPPED
        if tag not in self.INLINE:
            self.paragraphs.append("")

    def handle_endtag(self, tag):
        self.depth -= tag in self.SKIPPED and self.depth > 0
        if tag not in self.INLINE:
            self.paragraphs.append("")

    def handle_data(self, data):
        if not self.depth:
            self.paragraphs[-1] += data


def page(path):
    return [Page(path).paragraphs]


EXPIRED = "copyright expired"
SOURCES = [
    Source("r-cran-janeaustenr", "data/Rdata.rdb", r_strings, "Jane Austen, six novels (1811-1818)", EXPIRED),
    Source("r-cran-tokenizers", "data/Rdata.rdb", r_strings, "Herman Melville, Moby-Dick (1851)", EXPIRED),
    Source("golang-github-pierrec-lz4-dev", "testdata/pg1661.txt", plain,
           "Arthur Conan Doyle, The Adventures of Sherlock Holmes (1892)", EXPIRED),
    Source("golang-github-pierrec-lz4-dev", "testdata/Mark.Twain-Tom.Sawyer.txt", plain,
           "Mark Twain, The Adventures of Tom Sawyer (1876)", EXPIRED),
    Source("golang-github-andybalholm-brotli-dev", "testdata/Isaac.Newton-Opticks.txt", plain,
           "Isaac Newton, Opticks (1730)", EXPIRED),
    Source("dict-devil", "devil.dict.dz", devil, "Ambrose Bierce, The Devil's Dictionary (1911)", "public domain"),
    Source("jargon-text", "jargon.txt.gz", jargon, "The Jargon File, version 4.4.7 (2003)", "public domain"),
    Source("sqlite3-doc", "sqlite3/*.html", page, "SQLite's documentation (2022)", "public domain"),
    Source("sword-text-web", "*.bzz", sword, "From the World English Bible", "public domain"),
    Source("sword-comm-mhcc", "*.bzz", sword, "Matthew Henry, Concise Commentary", "public domain"),
    Source("sword-comm-tdavid", "*.czz", sword, "C. H. Spurgeon, The Treasury of David (1869-1885)", "public domain"),
]


def clean(paragraph):
    """The paragraph as one line of ASCII, or None where it is no prose (a heading, a table, code, a foreign script)."""
    text = unicodedata.normalize("NFKD", paragraph.translate(TYPOGRAPHY).replace("--", " - "))
    text = re.sub(r"\s+", " ", "".join(c for c in text if not unicodedata.combining(c))).strip()
    text = re.sub(r"^\d+\. ", "", text)
    letters = sum(c.islower() or c == " " for c in text)
    whole = re.search(r"""[.?!:;,]['")]*( -[A-Za-z ,.&-]*)?$""", text)
    good = PROSE.fullmatch(text) and whole and letters >= 0.75 * len(text) and len(text.split()) >= 3
    return text if good and not SLUR.search(text) else None


def documents(sections, seen):
    """Runs of a section's paragraphs, joined by spaces, of DOCUMENT characters or a little more; none was seen before."""
    for section in sections:
        text = ""
        for paragraph in filter(None, map(clean, section)):
            if paragraph not in seen:
                seen.add(paragraph)
                text += " " * bool(text) + paragraph
            if len(text) >= DOCUMENT:
                yield text
                text = ""
        if len(text) >= DOCUMENT // 20:
            yield text


def held_out(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") < HELD_OUT * 2**32


def main(debs, out):
    files, seen, table = collections.defaultdict(list), set(), []
    for source in SOURCES:
        paths = sorted((debs / source.package / "usr").rglob(source.pattern))
        assert paths, f"{source.package} has no {source.pattern}"
        found = [text for path in paths for text in documents(source.read(path), seen)]
        for text in found:
            files["validation" if held_out(text) else "train"].append(text)
        deb, = debs.glob(f"{source.package}_*.deb")
        version = deb.name.split("_")[1].replace("%3a", ":")
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        table.append(f"| {source.title} | {source.status} | {sum(map(len, found)) / 1e6:.2f} "
                     f"| `{source.package}` {version} | `{digest}` |")
    out.mkdir(parents=True, exist_ok=True)
    for name, texts in files.items():
        texts.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
        (out / f"{name}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), "ascii")
        print(f"{name}.jsonl: {len(texts):,} documents, {sum(map(len, texts)):,} characters")
    (out / "sources.md").write_text(
        "| text | status | MB used | Debian package | sha256 of the package |\n|---|---|---:|---|---|\n"
        + "\n".join(table) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--packages"]:
        print(*sorted({source.package for source in SOURCES}), sep="\n")
    elif len(sys.argv) == 3:
        main(*map(pathlib.Path, sys.argv[1:]))
    else:
        sys.exit(__doc__)
