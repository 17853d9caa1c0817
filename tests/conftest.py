import os
from pathlib import Path

import pytest


def pytest_addoption(parser):
    """`--fixtures DIR`: the folder of reference inputs and outputs.

    pytest has an option of that name, which lists fixtures. It gives way; `--funcargs` still does that.
    """
    options = parser.optparser._option_string_actions
    builtin = options.pop("--fixtures")
    builtin.option_strings = [name for name in builtin.option_strings if name != "--fixtures"]
    default = Path(__file__).parent / "fixtures"
    parser.addoption(
        "--fixtures", dest="references", default=str(default), help="folder of reference outputs"
    )


@pytest.fixture(scope="module", autouse=True)
def drawn_once():
    """No picture of the miniature is drawn twice, see tests/drawings.py."""
    from evaluation.mini import dataset
    from tests import drawings

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "image", drawings.image)
        yield


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory):
    """Folder of a random-weight Stable Diffusion; see tests/tiny.py."""
    from tests import tiny

    return tiny.build_sd(tmp_path_factory.mktemp("tiny_sd"))


@pytest.fixture(scope="session")
def sd15(tmp_path_factory):
    """Folder of SD 1.5 with random weights, see tests/full_size.py; UNLEARNCANVAS_SD15=FOLDER keeps it."""
    from tests import full_size

    kept = os.environ.get("UNLEARNCANVAS_SD15")
    folder = Path(kept).resolve() if kept else tmp_path_factory.mktemp("sd15")
    if not (folder / "world.yaml").exists():
        full_size.build(folder)
    return folder
