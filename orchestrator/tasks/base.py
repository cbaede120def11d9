"""What a task is: a source of problems with a question, a chain of thought and an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

Split = Literal["train", "validation", "test"]


class Example(NamedTuple):
    """One problem. The texts hold symbols joined by blanks."""

    question: str
    cot: str
    answer: str

    @property
    def line(self) -> str:
        """The reference's text format."""
        return f"{self.question}||{self.cot} #### {self.answer}"


class Task(Protocol):
    """Where problems come from and how an answer is judged."""

    symbols: tuple[str, ...]
    """Every symbol that occurs, for a tokenizer of the task's own."""

    @property
    def cot_symbols(self) -> int:
        """Symbols of the longest CoT."""

    @property
    def example_symbols(self) -> int:
        """Symbols of the longest example, with ``####``."""

    def size(self, split: Split) -> int: ...

    def examples(self, split: Split) -> Iterator[Example]: ...

    def is_correct(self, predicted: str, answer: str) -> bool: ...
