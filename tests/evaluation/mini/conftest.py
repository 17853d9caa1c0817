import pytest


@pytest.fixture(scope="module", autouse=True)
def drawn_once():
    """Every picture is drawn anew: these tests are about the drawing itself."""
