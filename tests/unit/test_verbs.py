"""What the front page says of the verbs, against the program itself."""

from __future__ import annotations

import re
from itertools import takewhile


def test_table_of_verbs_has_every_verb_once(stepwise, repository):
    _, table = (repository / "README.md").read_text().split("| verb |")
    rows = takewhile(lambda line: line.startswith("|"), table.splitlines()[1:])
    told = [words.split()[0] for row in rows for words in re.findall(r"`([^`]+)`", row.split("|")[1])]
    verbs = re.findall(r"^  (\w+)  ", stepwise("--help").out.split("Commands:")[1], re.MULTILINE)
    assert sorted(told) == sorted(verbs)
