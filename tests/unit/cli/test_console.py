"""What is printed where an encoding lacks our signs."""

from __future__ import annotations

from reconciler.cli.console import STAND_IN
from reconciler.inspection.theme import SIGNS, Tone


def test_every_tone_has_a_sign_of_its_own_in_ascii() -> None:
    """Those that mean a person should look above all; a ghost is a question mark anywhere."""
    signs = {tone: sign.glyph.encode("ascii", STAND_IN) for tone, sign in SIGNS.items()}
    assert len(set(signs.values())) == len(SIGNS)
    assert [tone for tone, sign in signs.items() if sign == b"?"] == [Tone.GHOST]


def test_what_has_no_stand_in_is_a_question_mark() -> None:
    assert "├ ✓ a → 日…".encode("ascii", STAND_IN) == b"+ + a > ?~"
    assert "é →".encode("latin-1", STAND_IN) == "é >".encode("latin-1")
