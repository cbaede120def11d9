"""Small words for tables."""


def duration(seconds: float | None) -> str:
    """``1:05`` for minutes and seconds, ``2 h 03`` for hours, ``-`` for what is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d}" if hours else f"{minutes}:{rest:02d}"


def count(number: int, word: str) -> str:
    """``1 trial``, ``3 trials``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
