"""Wrong words are answered by every command before anything slow is imported."""

import pytest

from tests.commands import COMMANDS, answer


@pytest.mark.parametrize("module", COMMANDS)
def test_a_wrong_flag(module, tmp_path):
    assert len(COMMANDS) > 55
    answer(tmp_path, module, "--no-such-flag")
