import base64
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from evaluation import report
from evaluation.drawing import gallery
from evaluation.drawing.page import render
from evaluation.reporting.collect import collect
from evaluation.reporting.formats import cell, present, printed
from evaluation.reporting.matrices import interference
from evaluation.reporting.rows import main_rows
from evaluation.reporting.sequences import sequence_rows, triangle_rows
from evaluation.reporting.side_effects import compared, effect_columns, effect_rows, effect_target_rows
from style_transfer import table
from tests import synthetic
from tests.style_transfer.test_table import about

PROTOCOL = synthetic.protocol()
VOID = {"meta", "link", "br", "input", "img"}
NASTY = "<b>&'\"</script>"


def collateral(cell):
    """Sketch is forgotten, Cats are drawn right half of the time."""
    theme = "Winter" if cell.theme == "Sketch" else cell.theme
    return theme, "Trees" if cell.object == "Cats" and cell.seed == 1 else cell.object


class Page(HTMLParser):
    """Rows of cells of every section's tables, and attributes of cells; fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.section, self.rows, self.ids, self.cells = [], None, {}, [], []
        self.feed(text)
        self.close()
        assert not self.open and len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "section":
            self.section = attrs["id"]
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")
            self.cells.append((self.section, attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data.strip()


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    synthetic.answer_set(root / "base" / "answers", PROTOCOL, see=synthetic.right, images=True)
    for target in ("Sketch", "Monet", "Sketch+Cats"):
        synthetic.run_folder(root, "esd", target, PROTOCOL, collateral, images=True, commit="c0ffee")
    synthetic.run_folder(root, "toy", "Sketch", PROTOCOL, synthetic.right, images=True, seed=77)
    return root


def written(root, out):
    report.main([str(root), "--out", str(out)])
    return (out / "report.html").read_text()


def test_main_table_is_that_of_tables(runs, tmp_path):
    results = [result for result in collect([runs])[0] if result.kind != "pair"]
    rows = main_rows(results)
    names = printed(rows)
    page = Page(written(runs, tmp_path))
    assert page.rows["table"][0] == [name.replace("_", " ") for name in names]
    assert page.rows["table"][1 : len(rows) + 1] == [[cell(row, name) for name in names] for row in rows]
    assert any("[" in text for row in page.rows["table"][len(rows) + 1 :] for text in row)  # intervals


def test_matrix_has_value_images_and_base(runs, tmp_path):
    page = Page(written(runs, tmp_path))
    matrices = interference(collect([runs])[0])
    values = [f"{value:.2f}" for matrix in matrices.values() for value in matrix.values.flat]
    cells = [attrs for section, attrs in page.cells if section == "matrix" and "data-v" in attrs]
    assert [attrs["data-v"] for attrs in cells] == values
    row = cells[14:21]  # esd forgot Sketch; base and Monet stand above
    assert "own" in row[2]["class"] and (row[2]["data-v"], row[2]["data-b"]) == ("0.00", "100.00")
    assert row[2]["data-n"] == "6" and (row[4]["data-v"], row[4]["data-n"]) == ("50.00", "6")
    assert sum(attrs["tabindex"] == "0" for attrs in cells) == len(matrices)  # one way in with the Tab key


def test_worst_collateral_leaves_targets_out(runs, tmp_path):
    rows = Page(written(runs, tmp_path)).rows["worst"][1:]
    assert rows[0] == ["esd", "Monet", "Sketch", "100.0", "0.0", "100.0", "show"]
    assert ["esd", "Sketch", "Cats"] in [row[:3] for row in rows] and len(rows) == 3
    assert not any(row[1:3] == ["Sketch", "Sketch"] or row[0] == "toy" for row in rows)


def test_provenance_of_every_run(runs, tmp_path):
    page = Page(written(runs, tmp_path))
    head, *rows = page.rows["runs"]
    rows = [dict(zip(head, row)) for row in rows]
    esd = next(row for row in rows if (row["method"], row["target"]) == ("esd", "Sketch"))
    assert (esd["commit"], esd["seed"], esd["UA"]) == ("c0ffee", "0", "100.00")
    assert '"lr": 1e-05' in esd["settings"] and esd["base model"] == synthetic.MODEL
    assert esd["judges"] == f"{'a' * 16}+{'a' * 16}"
    assert next(row for row in rows if row["method"] == "toy")["seed"] == "77"
    assert ["hash", PROTOCOL.hash] in page.rows["protocol"]


def test_gallery_pairs_base_and_unlearned(runs):
    shown = gallery.gallery(collect([runs])[0])
    data, cells = shown["data"], shown["data"]["grids"][0]
    assert len(shown["sprites"]) == len(data["sets"]) == 5 and len(data["runs"]) == 4
    assert shown["commands"] == []
    sketch = next(run for run in data["runs"] if (run["method"], run["target"]) == ("esd", "Sketch"))
    assert sketch["base"] == 0 and sketch["own"] != 0
    own = data["sets"][sketch["own"]]
    at = own["places"].index(cells.index(("Sketch", "Cats", 1)))
    assert (
        sketch["covers"][at] and not sketch["covers"][own["places"].index(cells.index(("Monet", "Cats", 1)))]
    )
    assert own["seen"][at] == ("Winter", 0.9, "Trees", 0.9)
    assert data["sets"][0]["seen"][own["places"][at]][::2] == ("Sketch", "Cats")


def test_without_images_names_the_command(runs, tmp_path):
    (runs / "toy/Sketch/answers/Monet_Cats_seed1.png").unlink()
    page = written(runs, tmp_path)
    folder = runs / "toy" / "Sketch"
    line = f"sample --model checkpoints/mini --run {folder} --protocol small --out {folder}/answers"
    assert "images here: 1" in page and line in page and page.count('id="sprite') == 4
    for path in (runs / "base/answers").glob("*.[pw][ne][gb]*"):
        path.unlink()
    page = written(runs, tmp_path)
    assert 'id="sprite' not in page and 'id="pairs"' not in page and 'class="show"' not in page
    assert f"--model checkpoints/mini --protocol small --out {runs}/base/answers" in page
    Page(page)


def test_without_base(runs, tmp_path):
    (runs / "base/answers/predictions.csv.gz").unlink()
    page = written(runs, tmp_path)
    assert "No base model's answers" in page
    assert not any("data-b" in attrs for _, attrs in Page(page).cells)


def test_one_file_without_network(runs, tmp_path):
    page = written(runs, tmp_path)
    assert not re.search(r"https?:|//\w+\.\w|@import|<script[^>]*src|url\((?!\$)", page)
    images = re.findall(r"<img([^>]*)>", page)
    assert images and all(re.search(' src="data:image/webp;base64,[^"]+"$', tag) for tag in images)
    assert all(link == "data:," for link in re.findall(r'<link[^>]*href="([^"]*)"', page))
    assert len(page) < 200_000


def test_same_input_same_bytes(runs, tmp_path):
    assert written(runs, tmp_path / "a") == written(runs, tmp_path / "b")


def test_names_are_escaped(runs, tmp_path):
    synthetic.run_folder(runs, "odd", "Sketch", PROTOCOL, collateral, True, variant=NASTY, commit=NASTY)
    synthetic.run_folder(runs, "odd", "Monet", PROTOCOL, collateral, True, variant="plain")
    text = written(runs, tmp_path)
    assert NASTY not in text and "<b>" not in text
    assert any(NASTY in row[0] for row in Page(text).rows["table"])


ACTIONS = """<script>
const all_of = selector => [...document.querySelectorAll(selector)];
const text = selector => all_of(selector).map(each => each.textContent.trim()).join("|");
const result = {};
all_of("#worst th button")[5].click();
all_of("#worst th button")[4].click();
result.sorted = text("#worst tbody tr td:nth-child(5)");
all_of("#worst .show")[0].click();
result.filtered = all_of("#filters select").map(each => each.value).join("|");
result.pairs = all_of(".pair").length;
document.querySelector(".pair").click();
result.opened = document.getElementById("open").open && text("dialog figcaption");
document.getElementById("open").close();
document.querySelector(".matrix td").focus();
document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
// a window without the desktop's focus moves its focus without saying so
if (!document.hasFocus()) document.activeElement.dispatchEvent(new FocusEvent("focusin", { bubbles: true }));
result.tip = document.getElementById("tip").textContent;
result.panels = all_of(".panel:not([hidden])").length;
document.body.replaceChildren(JSON.stringify(result));
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium; apt install chromium")
def test_in_a_browser(runs, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(written(runs, tmp_path).replace("</body>", ACTIONS + "</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    options += ["--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run(["chromium", *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    result = json.loads(html.unescape(re.search(r"<body>(.*)</body>", done.stdout, re.DOTALL)[1]))
    after = [float(value) for value in result["sorted"].split("|")]
    assert after == sorted(after, reverse=True) and len(set(after)) > 1
    assert result["filtered"] == "esd|Monet||Cats" and result["pairs"] == 8
    assert result["opened"].startswith(
        "base model: seen as Cats (0.9) in Monet (0.9)|unlearned: seen as Trees"
    )
    assert result["tip"] == "Base model: Photo\n100.00 % of 6 images; base model 100.00 %"
    assert result["panels"] == 1


def test_style_transfer_is_a_section_of_its_own(runs, tmp_path):
    for name, losses in {"sanet": (3.5, 39.0), "content": (4.0, 40.0), "statistics": (5.0, 50.0)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "losses.json").write_text(json.dumps(about(name, *losses)))
    Image.new("RGB", (40, 30), "red").save(tmp_path / "sheet.png")
    table.main([str(tmp_path)])
    plain, with_it = (render(*collect([runs]), {}, root) for root in (None, tmp_path))
    assert "transfer" not in Page(plain).ids
    rows = Page(with_it).rows["transfer"]
    assert [row[0] for row in rows[1:4]] == ["content", "statistics", "sanet"]
    assert rows[3][rows[0].index("vgg style truth")] == "3.500" and rows[3][-1] == "vgg, vit"
    assert any(row[0] == "SANet (published)" for row in rows)
    assert picture(with_it, "transfer").size == (40, 30)


def picture(page, section):
    """Of a section of the page."""
    sent = re.search(r"data:image/webp;base64,([^\"]+)", page.partition(f'id="{section}"')[2]).group(1)
    return Image.open(io.BytesIO(base64.b64decode(sent)))


def test_pairs_and_requests_in_turn_have_sections_of_their_own(runs, tmp_path):
    """Their tables are those of the commands, and none of their rows are in the main table."""
    page = Page(written(runs, tmp_path))
    assert "sequential" not in page.ids  # nothing went on from another yet
    synthetic.run_folder(runs, "esd", "Sketch~Monet", PROTOCOL, collateral)
    text = written(runs, tmp_path)
    page, results = Page(text), collect([runs])[0]
    assert 'href="#sequential">Sequential</a>' in text and 'href="#finer">Finer scale</a>' in text
    for rows, names in (sequence_rows(results), triangle_rows(results)):
        names = present(names, rows, False)
        for line in (
            [name.replace("_", " ") for name in names],
            *([cell(r, n) for n in names] for r in rows),
        ):
            assert line in page.rows["sequential"]
    pairs = [result for result in results if result.kind == "pair"]
    assert [row[0] for row in page.rows["finer"]] == ["method", "base", "esd", "method", "base", "esd"]
    assert page.rows["finer"][2][page.rows["finer"][0].index("pair UA")] == "100.00"
    assert len(pairs) == 2 and not any("pair" in name for name in page.rows["table"][0])
    assert "Order 1: Sketch, then Monet." in text and "Not above: 1 runs" in text
    assert picture(text, "finer").size == (1400, 140 + 2 * 346)
    assert ["esd", "Sketch~Monet"] in [row[:2] for row in page.rows["runs"]]
    assert not any(row[:1] == ["Sketch,Monet"] for row in page.rows["matrix"])


def test_side_effects_are_those_of_the_command(runs, tmp_path):
    text = written(runs, tmp_path)
    page, shown = Page(text), compared(collect([runs])[0])
    for make in (effect_rows, effect_target_rows):
        rows = make(shown)
        names = present(effect_columns(), rows, False)
        lines = [[name.replace("_", " ") for name in names], *([cell(r, n) for n in names] for r in rows)]
        assert all(line in page.rows["side-effects"] for line in lines)
    assert 'href="#side-effects">Side effects</a>' in text and "Not above: 1 runs of pairs" in text
    assert not any("Sketch+Cats" in row for row in page.rows["side-effects"])


def test_a_root_of_chains_alone(tmp_path):
    root = tmp_path / "runs"
    synthetic.run_folder(root, "esd", "Sketch~Monet", PROTOCOL, collateral)
    page = Page(written(root, tmp_path))
    assert page.rows["sequential"][1][:2] == ["esd", "2"]
    assert not {"table", "side-effects"} & {*page.rows}
