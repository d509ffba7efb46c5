"""Numbers in prose are those that an experiment recorded while it was proved."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.site.conftest import Document

ROOT = Path(__file__).resolve().parents[2]
DATA = re.compile(r'<data value="(?P<where>[^"]*)">(?P<said>.*?)</data>', re.DOTALL)
NUMBER = re.compile(r"[-\u2212]?\d[\d,]*(?:\.(?P<decimals>\d+))?(?P<percent>\s*%)?")
CODE = re.compile(r"`[^`]+`")
LOOSE = re.compile(r"\d+\.\d+|\d+\s*%")


def recorded(site: Path, where: str) -> tuple[float, float]:
    """The mean and the spread that `page#path.of.keys` names."""
    page, _, path = where.partition("#")
    text = (site / page / f"{page.rpartition('/')[2]}.json").read_text("utf-8")
    leaf: Any = reduce(lambda found, key: found[key], path.split("."), json.loads(text))
    if isinstance(leaf, dict):
        return float(leaf["mean"]), float(leaf["sd"])
    return float(leaf), 0.0


def wrong_numbers(site: Path, page: str) -> Iterator[str]:
    """Say which marked numbers of a page's HTML are not what was recorded."""
    for found in DATA.finditer(page):
        said = html.unescape(found["said"])
        number = NUMBER.search(said)
        try:
            mean, spread = recorded(site, found["where"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            yield f"{said} ({found['where']}): nothing is recorded there ({error!r})"
            continue
        if not number:
            yield f"{said} ({found['where']}): this is no number"
            continue
        plain = number[0].rstrip(" %").replace("\u2212", "-").replace(",", "")
        scale = 100 if number["percent"] else 1
        rounding = 0.5 * 10 ** -len(number["decimals"] or "")
        if abs(float(plain) - scale * mean) > rounding + scale * spread:
            yield f"{said} ({found['where']}): {scale * mean:.4g} was recorded"


def loose_numbers(source: str) -> Iterator[str]:
    """Decimals and percentages in a notebook's prose that no record stands behind."""
    for cell in re.split(r"^# %%", source, flags=re.MULTILINE):
        if cell.startswith(" [markdown]"):
            prose = CODE.sub("", DATA.sub("", cell.replace("\n# ", "\n")))
            prose = re.sub(r"\]\([^)]*\)", "]", prose)
            yield from LOOSE.findall(prose)


def test_marked_numbers_are_those_recorded(
    site: Path, documents: list[Document]
) -> None:
    marked = 0
    for document in documents:
        path = site / document.url
        path = path / "index.html" if path.is_dir() else path
        page = path.read_text("utf-8")
        marked += len(DATA.findall(page))
        assert list(wrong_numbers(site, page)) == [], document.source
    assert marked >= 20


def test_experiments_mark_all_their_results(documents: list[Document]) -> None:
    notebooks = [d.source for d in documents if d.source.endswith(".py")]
    assert len(notebooks) >= 6
    for notebook in notebooks:
        source = (ROOT / notebook).read_text("utf-8")
        assert list(loose_numbers(source)) == [], notebook


@pytest.fixture
def recorded_site(tmp_path: Path) -> Path:
    folder = tmp_path / "resnet" / "depth"
    folder.mkdir(parents=True)
    results = {"plain": {"40": {"mean": 0.416, "sd": 0.02}}, "blocks": 19}
    (folder / "depth.json").write_text(json.dumps(results), "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("where", "said", "refused"),
    [
        ("plain.40", "42 %", ""),
        ("plain.40", "0.416", ""),
        ("plain.40", "40 %", ""),  # within the spread
        ("plain.40", "45 %", "41.6 was recorded"),
        ("plain.40", "0.42 %", "41.6 was recorded"),
        ("blocks", "19 blocks", ""),
        ("blocks", "20", "19 was recorded"),
        ("blocks", "many", "this is no number"),
        ("plain.41", "42 %", "nothing is recorded there"),
        ("plain", "42 %", "nothing is recorded there"),
    ],
)
def test_the_test_notices_numbers(
    recorded_site: Path, where: str, said: str, refused: str
) -> None:
    page = f'<p><data value="resnet/depth#{where}">{said}</data></p>'
    found = list(wrong_numbers(recorded_site, page))
    assert len(found) == bool(refused), found
    assert refused in "".join(found)


def test_the_test_notices_loose_numbers() -> None:
    prose = "# %% [markdown]\n# It is 96 % or 0.5, at `lr=0.1` and"
    marked = '<data value="a#b">96 %</data> ([2.3](x-0.4.md)).\n# %%\nx = 0.7\n'
    assert list(loose_numbers(f"{prose} {marked}")) == ["96 %", "0.5", "2.3"]
