import pytest

from evaluation import accuracy
from evaluation.canvas import parse_targets
from evaluation.metrics.suspicions import suspicions
from tests import synthetic
from tests.synthetic import from_rows

PROTOCOL = synthetic.protocol()


def look(see=synthetic.right, files="run", base=synthetic.right, target="Sketch"):
    """Suspicions about answers; every image is a file of its own, named `files`."""

    def seen(see, files):
        rows = enumerate(synthetic.predictions(PROTOCOL, see))
        return from_rows([row._replace(sha256=f"{files}{i}") for i, row in rows], PROTOCOL)

    ours, its, targets = seen(see, files), seen(base, "base"), tuple(parse_targets(target))
    return suspicions(its, PROTOCOL) + suspicions(ours, PROTOCOL, targets, its)


def forgot(cell):
    return "Winter" if cell.theme == "Sketch" else cell.theme, cell.object


def some_wrong(cell):
    return cell.theme, "Sea" if cell.object == "Cats" and cell.seed == 1 else cell.object


def test_nothing_to_say_of_a_clean_result():
    assert look(forgot) == []


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        ({"see": forgot, "base": some_wrong}, ["base model's objects are recognised in only 83.3%"]),
        ({"files": "base"}, ["all 24 images are the base model's"]),
        (
            {"see": lambda cell: ("Winter", "Sea")},
            [
                "24 of 24 images are taken for Sea in Winter",
                "CRA_kept fell to 33.3% from the base model's 100.0%",
            ],
        ),
        (
            {"see": lambda cell: ("Sketch", cell.object)},
            ["with Sketch forgotten, IRA fell to 0.0% from the base model's 100.0%"],
        ),
    ],
)
def test_each_is_said(arguments, sentences):
    odd = look(**arguments)
    assert len(odd) == len(sentences), odd
    for part, sentence in zip(sentences, odd):
        assert part in sentence


def test_one_file_over_and_over():
    (sentence,) = suspicions(synthetic.seen(PROTOCOL), PROTOCOL)  # all of one hash
    assert sentence.startswith("23 of 24 images are byte for byte the same")


def test_the_command_says_so_and_compares_a_foreign_model(tmp_path, capsys):
    synthetic.answer_set(tmp_path / "base", PROTOCOL, see=synthetic.right)
    synthetic.answer_set(tmp_path / "foreign", PROTOCOL, see=forgot, model="f" * 16)
    accuracy.main([str(tmp_path / "foreign"), "--target", "Sketch", "--base", str(tmp_path / "base")])
    out = capsys.readouterr().out
    assert "base model 0.00 %" in out and "\nnote: 23 of 24 images" in out
