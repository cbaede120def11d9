"""The model card of an exported stage: its accuracy, its speed and its lineage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator import labels
from orchestrator.config import Job, Method, PretrainedModel
from orchestrator.identity import non_default
from orchestrator.results.find import Place
from orchestrator.results.frontier import FrontierPoint
from orchestrator.shown import code, markdown, names_only
from orchestrator.store import Manifest

_ABOUT: dict[Method, str] = {
    "stepwise": "It was taught by [Stepwise Internalization](https://arxiv.org/abs/2405.14838): chain-of-thought (CoT) "
    "tokens were removed a few at a time while it trained on.",
    "explicit_cot": "It writes its whole chain of thought (CoT): a baseline of "
    "[Stepwise Internalization](https://arxiv.org/abs/2405.14838).",
    "icot_kd": "It writes its whole chain of thought (CoT): the teacher of ICoT-KD (Deng et al. 2023).",
    "no_cot": "It never saw a chain of thought (CoT): a baseline of "
    "[Stepwise Internalization](https://arxiv.org/abs/2405.14838).",
}


@dataclass(frozen=True)
class Card:
    """The facts of a model card."""

    place: Place
    lineage: Sequence[Manifest]
    """The stage and its ancestors, the first one first."""
    point: FrontierPoint | None
    """The stage's point on its job's frontier."""
    prompt: str
    """The question of an example as the pipeline is given it."""
    written: str
    """The text that the exported model wrote after it."""
    separator: str
    fork: bool

    def text(self) -> str:
        """Return the card as Markdown, with the front matter of the Hugging Face hub."""
        parts = [self._front_matter(), self._header(), self._use(), self._lineage(), self._again(), self._licence()]
        return "\n\n".join(parts) + "\n"

    def _front_matter(self) -> str:
        model = self.place.trial.job.model
        base = []
        if isinstance(model, PretrainedModel) and not model.is_folder:
            base = [f"base_model: {json.dumps(model.name)}"]
        tags = "tags: [stepwise-internalization, chain-of-thought]"
        return "\n".join(["---", "library_name: transformers", "pipeline_tag: text-generation", *base, tags, "---"])

    def _header(self) -> str:
        job, trial, stage = self.place.plan.job.name, self.place.trial, self.place.tried.stage
        return "\n".join(
            [
                f"# {markdown(job)}, {markdown(trial.name)}, stage {stage.index}",
                "",
                _ABOUT[trial.method],
                "",
                *_table(["what", "value"], self._facts()),
            ]
        )

    def _facts(self) -> Iterator[list[str]]:
        metrics = self.place.tried.manifest.metrics
        rate = self.point.examples_per_second if self.point else metrics.examples_per_second
        against = f", {labels.speedup(self.point.speedup)} No CoT" if self.point and self.point.speedup else ""
        right = round(metrics.exact_match * metrics.examples)
        yield ["task", markdown(_task(self.place.trial.job))]
        yield ["method", labels.LABELS[self.place.trial.method]]
        yield ["CoT tokens removed", f"{metrics.removed_tokens} of {metrics.total_tokens}"]
        yield [
            "exact match",
            f"{labels.exact(metrics.exact_match)} ({right:,} of {metrics.examples:,} validation examples)",
        ]
        yield ["tokens written per answer", labels.tokens(metrics.generated_tokens)]
        yield ["speed where it was trained", f"{labels.rate(rate)} examples/s, one at a time{against}"]
        yield ["stage", f"`{self.place.tried.stage.key}`"]

    def _use(self) -> str:
        return f"""## Use

```python
from transformers import pipeline

model = pipeline("text-generation", model=".")
prompt = {json.dumps(self.prompt)}
[output] = model(prompt, return_full_text=False, skip_special_tokens=False)
answer = output["generated_text"].partition("####")[2].partition({json.dumps(self.separator)})[0].strip()
```

The model was measured with greedy decoding, as `generation_config.json` has it. After this prompt it writes
{code(self.written)}."""

    def _lineage(self) -> str:
        rows = [
            [
                str(number),
                f"`{manifest.key[:8]}`",
                f"{manifest.metrics.removed_tokens}/{manifest.metrics.total_tokens}",
                f"{manifest.metrics.steps_taken or manifest.identity['stage'].get('steps', 0):,}",
                labels.exact(manifest.metrics.exact_match),
                manifest.verdict,
            ]
            for number, manifest in enumerate(self.lineage)
        ]
        head = ["stage", "key", "tokens removed", "steps", "exact match", "verdict"]
        return "\n".join(["## Lineage", "", "Each stage was trained from the one before.", "", *_table(head, rows)])

    def _again(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.place.tried.manifest.versions.items())
        note = ""
        if self.fork:
            note = (
                "\n\nThat alone trains another model: this one's chain left an older one by `stepwise fork`, and the "
                "job file has the fields that held from there. The stages before are in the lineage above."
            )
        return f"""## Reproduce

```bash
stepwise run job.toml
```

It was trained with {markdown(versions)}.{note}"""

    def _licence(self) -> str:
        model = self.place.trial.job.model
        if isinstance(model, PretrainedModel):
            says = f"These weights derive from {code(model.name)}, whose licence and terms hold for them."
        else:
            says = "These weights were trained from random ones. The licence of Stepwise does not extend to them."
        return f"## Licence\n\n{says} Name a licence here before you publish them."


def _task(job: Job) -> str:
    fields = names_only(non_default(job.task))
    return ", ".join([str(fields.pop("type")), *(f"{key} {json.dumps(value)}" for key, value in fields.items())])


def _table(head: list[str], rows: Iterator[list[str]] | list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
