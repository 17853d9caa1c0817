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


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory):
    """Folder of a random-weight Stable Diffusion; see tests/tiny.py."""
    from tests import tiny

    return tiny.build_sd(tmp_path_factory.mktemp("tiny_sd"))
