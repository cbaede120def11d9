"""What a task is: a source of problems with a question, a chain of thought and an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol

Split = Literal["train", "validation", "test"]


class Example(NamedTuple):
    """One problem. Blanks separate symbols."""

    question: str
    cot: str
    answer: str

    @property
    def line(self) -> str:
        """The reference's text format. Line breaks become blanks."""
        return " ".join(f"{self.question}||{self.cot} #### {self.answer}".splitlines())


class Task(Protocol):
    """Where problems come from and how an answer is judged."""

    exact: bool
    """Whether no answer is right but the one that is written there, symbol for symbol."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol that occurs, for a tokenizer of the task's own."""

    @property
    def cot_symbols(self) -> int:
        """Symbols of the longest CoT."""

    @property
    def cot_pieces(self) -> int:
        """About as many tokens as a pretrained model's tokenizer makes of the longest CoT."""

    @property
    def example_symbols(self) -> int:
        """Symbols of the longest example, with ``####``."""

    @property
    def identity(self) -> dict[str, Any]:
        """Return what says which examples these are, for keys."""

    def size(self, split: Split) -> int: ...

    def examples(self, split: Split) -> Iterator[Example]: ...

    def place(self, split: Split, row: int) -> str:
        """Return where an example stands, for people: its file and line."""

    def is_correct(self, predicted: str, answer: str) -> bool: ...
