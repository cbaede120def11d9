"""A small model trained for real: verified accuracy is plain greedy decoding's, a walk is adopted and repeatable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from math import inf, log
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Lfm2Config, Lfm2ForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from orchestrator.config import Evaluation, Job
from orchestrator.errors import StoreError
from orchestrator.method.decoding import whole_cache
from orchestrator.method.encoding import extract_answer
from orchestrator.method.evaluate import Evaluator, Removed, answer_entropy, answer_tokens, mark_tokens
from orchestrator.method.models.model import load_weights
from orchestrator.method.tokens import token_table
from orchestrator.plan import Trial, build_plan
from orchestrator.store import Manifest, StageStore
from orchestrator.tasks import make_task
from orchestrator.trials.data import JobData, prepare_data
from orchestrator.trials.runner import Hooks, StageRunner, Workplace
from orchestrator.trials.walk import walk

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
COT_TOKENS = 6
"""1x2 digits: ``0 8 + 0 0 8``."""


def make_job(**tables: dict[str, Any]) -> Job:
    tables = {
        "model": {"layers": 1, "width": 32, "heads": 4},
        "training": {"learning_rate": 5e-3, "batch_size": 64, "precision": "fp32"},
    } | tables
    return Job.model_validate({"name": "tiny", "task": {"digits": [1, 2]}} | tables)


def tiny_job(**tables: dict[str, Any]) -> Job:
    return make_job(
        **{
            "model": {"layers": 1, "width": 16, "heads": 2},
            "schedule": {"tokens_per_stage": 3, "stage_steps": 6, "pretrain_steps": 3, "consolidation_stages": 1},
            "evaluation": {"examples": 10, "speed_examples": 1, "speed_batch": 2},
        }
        | tables
    )


def start(job: Job, root: Path, watch: Callable[..., None] = lambda *_: None) -> tuple[Trial, StageRunner]:
    store = StageStore(root)
    data = prepare_data(job, store)
    trial = build_plan(job, data.total_tokens).trials[0]
    return trial, StageRunner(Workplace(job, data, store), Hooks(watch))


def walked(job: Job, root: Path, stages: int | None = None) -> list[Manifest]:
    return [chain.attempts[-1].manifest for chain in islice(walk(*start(job, root)), stages)]


def weights(manifests: list[Manifest]) -> list[str]:
    return [file.sha256 for manifest in manifests for file in manifest.files if file.path == "model.safetensors"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> JobData:
    return prepare_data(make_job(), StageStore(tmp_path_factory.mktemp("data")))


def make_evaluator(
    data: JobData, kind: type[Evaluator] = Evaluator, *, token_is_symbol: bool = True, **fields: int
) -> Any:
    config = Evaluation(**{"batch_size": 16} | fields)
    return kind(data.validation, data.tokenizer, data.task.is_correct, config, token_is_symbol=token_is_symbol)


@pytest.fixture(scope="module")
def evaluator(data: JobData) -> Evaluator:
    return make_evaluator(data)


class Trained(NamedTuple):
    """A committed stage's model and what was removed when it was trained."""

    model: PreTrainedModel
    removed: Removed
    manifest: Manifest


@pytest.fixture(scope="module")
def half_trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Trained]]:
    """The models of a short run: explicit CoT learnt in part, then everything removed in haste."""
    root = tmp_path_factory.mktemp("half-trained")

    def run(side: str = "left", keep_position: bool = False) -> list[Trained]:
        schedule = {"pretrain_steps": 150, "tokens_per_stage": 3, "stage_steps": 90, "smoothing_lambda": inf}
        job = make_job(schedule=schedule | {"removal_side": side, "keep_position": keep_position})
        return [
            Trained(
                load_weights(StageStore(root).folder(manifest)),
                Removed(manifest.metrics.removed_tokens, side, keep_position),
                manifest,
            )
            for manifest in walked(job, root)
        ]

    return run


@pytest.fixture(scope="module")
def explicit(half_trained: Callable[..., list[Trained]]) -> PreTrainedModel:
    """Some answers are right, some of them only by another CoT than the target's."""
    return half_trained()[0].model


@pytest.mark.parametrize("token_is_symbol", [True, False])
@pytest.mark.parametrize(
    ("side", "keep_position"), [("left", False), ("right", False), ("left", True), ("right", True)]
)
def test_verified_accuracy_is_that_of_decoding_at_every_stage(half_trained, data, side, keep_position, token_is_symbol):
    evaluator = make_evaluator(data, token_is_symbol=token_is_symbol)
    seen = []
    for model, removed, manifest in half_trained(side, keep_position):
        verified = evaluator.accuracy(model, removed)
        assert verified == evaluator.accuracy(model, removed, verify=False)
        assert verified.exact_match == manifest.metrics.exact_match
        seen.append((removed.tokens, verified.exact_match))
    assert [tokens for tokens, _ in seen] == [0, 0, 3, COT_TOKENS]
    assert any(0 < exact_match < 1 for tokens, exact_match in seen if tokens == 0)
    assert any(0 < exact_match < 1 for tokens, exact_match in seen if tokens)


class Heard(Evaluator):
    """Keeps what a model wrote, of every example that was decoded."""

    def written(self, model: PreTrainedModel, removed: Removed, *, verify: bool) -> dict[int, list[int]]:
        self.outputs: dict[int, list[int]] = {}
        self.accuracy(model, removed, verify=verify)
        return self.outputs

    def _is_right(self, output: list[int], row: int) -> bool:
        self.outputs[row] = output
        return super()._is_right(output, row)


@pytest.mark.parametrize("token_is_symbol", [True, False])
def test_decoding_from_the_first_wrong_token_writes_what_decoding_from_the_question_does(
    half_trained, data, token_is_symbol
):
    heard = make_evaluator(data, Heard, token_is_symbol=token_is_symbol)
    for model, removed, _ in half_trained():
        resumed, whole = (heard.written(model, removed, verify=verify) for verify in (True, False))
        assert resumed == {row: whole[row] for row in resumed}
        assert len(whole) == len(data.validation)
        assert resumed or (token_is_symbol and removed.tokens == COT_TOKENS), "nothing was compared"


def test_model_that_keeps_no_keys_and_values_is_decoded_from_the_question(data):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    end, layers = data.tokenizer.eos_token_id, {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
    model = Lfm2ForCausalLM(
        Lfm2Config(
            vocab_size=len(data.tokenizer), max_position_embeddings=data.longest, **shape, **layers, eos_token_id=end
        )
    )
    assert whole_cache(model) is None
    heard = make_evaluator(data, Heard, examples=8)
    verified, decoded = (heard.written(model, Removed(COT_TOKENS), verify=verify) for verify in (True, False))
    assert verified and verified.items() <= decoded.items()


def test_accuracy_on_more_removal_than_trained_is_that_of_decoding(explicit, evaluator):
    for removed in (Removed(3), Removed(99), Removed(3, "right"), Removed(5, keep_position=True)):
        assert evaluator.accuracy(explicit, removed) == evaluator.accuracy(explicit, removed, verify=False)


def test_accuracy_does_not_depend_on_the_batch_size(explicit, data, evaluator):
    alone = make_evaluator(data, batch_size=1).accuracy(explicit, Removed(0))
    together = evaluator.accuracy(explicit, Removed(0))
    assert alone.exact_match == together.exact_match
    assert alone.loss == pytest.approx(together.loss, rel=1e-5)


def test_accuracy_of_the_first_examples_only(explicit, data):
    assert make_evaluator(data, examples=7).accuracy(explicit, Removed(0)).examples == 7


def test_accuracy_leaves_the_model_training(explicit, evaluator):
    explicit.train()
    evaluator.accuracy(explicit, Removed(0))
    assert explicit.training


def test_speed_is_faster_without_the_cot_and_in_batches(half_trained, evaluator):
    first, *_, last = half_trained()
    alone, short = (evaluator.speed(model, removed, 1, 4) for model, removed, _ in (first, last))
    assert short.examples_per_second > alone.examples_per_second > 0
    assert evaluator.speed(first.model, first.removed, 40, 40).examples_per_second > alone.examples_per_second
    assert short.generated_tokens == 6
    assert alone.generated_tokens == pytest.approx(6 + COT_TOKENS, abs=0.5)


def naive_spot_check(model: PreTrainedModel, data: JobData, removed: Removed, examples: int) -> tuple[float, float]:
    """Example by example: the answer's tokens after its true, cut CoT."""
    loss, tokens, right = 0.0, 0, 0
    for row in range(examples):
        ids = data.validation.tokens[data.validation.offsets[row] : data.validation.offsets[row + 1]].tolist()
        begin, end = int(data.validation.cot_start[row]), int(data.validation.cot_end[row])
        ids = ids[:begin] + ids[min(begin + removed.tokens, end) :]
        answer = len(data.validation.answers[row].split())
        logits = model(torch.tensor([ids])).logits[0, -2 - answer : -2].log_softmax(-1)
        target = torch.tensor(ids[-1 - answer : -1])
        loss -= float(logits.gather(1, target[:, None]).sum())
        tokens += answer
        right += bool((logits.argmax(-1) == target).all())
    return loss / tokens, right / examples


@pytest.mark.parametrize("tokens", [0, 3, COT_TOKENS])
def test_spot_check_is_the_loss_and_exact_match_of_the_answers_alone(explicit, evaluator, data, tokens):
    removed = Removed(tokens)
    check = evaluator.spot_check(explicit, removed, 20)
    with torch.no_grad():
        loss, exact_match = naive_spot_check(explicit.eval(), data, removed, 20)
    assert check.loss == pytest.approx(loss, rel=1e-4)
    assert check.exact_match == exact_match


def test_spot_check_changes_nothing_about_training(tmp_path):
    jobs = [tiny_job(stability={"probe_examples": examples}) for examples in (8, 30)]
    first, second = (weights(walked(job, tmp_path / str(i))) for i, job in enumerate(jobs))
    assert first == second


def test_answers_are_found_where_a_tokenizer_cuts_everything_into_bytes(tmp_path):
    end = "<eos>"
    symbols = [end, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    byte_level = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(symbols)}, []))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level, eos_token=end)
    task = make_task(make_job().task)
    table = token_table(task, "validation", tokenizer, tmp_path / "validation.arrow")
    mark = mark_tokens(table, tokenizer)
    assert mark == len(" #### ")
    lengths = answer_tokens(table, mark)
    last = int(table.offsets[1]) - 1
    assert tokenizer.decode(table.tokens[last - lengths[0] : last]).strip() == table.answers[0]


def test_answer_entropy_is_that_of_the_answers_symbols(data):
    symbols = [symbol for example in data.task.examples("validation") for symbol in example.answer.split()]
    shares = [count / len(symbols) for count in Counter(symbols).values()]
    mark = mark_tokens(data.validation, data.tokenizer)
    assert mark == 1
    assert answer_entropy(data.validation, mark) == pytest.approx(-sum(s * log(s) for s in shares))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("x #### 1,234 ", "1,234"),
        (" 12,3 ", "12,3"),
        ("8 4 0 + 0 6 3 0 #### 8  0 4\t0", "8 0 4 0"),
        ("####", ""),
        ("8 4 0 + 0 6 3 0", "8 4 0 + 0 6 3 0"),
        ("1 #### 2 #### 3", "2 #### 3"),
    ],
)
def test_extract_answer_is_what_follows_the_mark(text, answer):
    assert extract_answer(text) == answer


def test_walk_commits_every_stage_with_what_was_measured(tmp_path):
    trial, runner = start(tiny_job(), tmp_path)
    manifests = [chain.attempts[-1].manifest for chain in walk(trial, runner)]
    assert [manifest.key for manifest in manifests] == [stage.key for stage in trial.stages]
    assert [manifest.metrics.removed_tokens for manifest in manifests] == [0, 0, 3, 6, 6]
    assert [len(manifest.metrics.after_removal) for manifest in manifests] == [0, 0, 3, 3, 0]
    assert all(manifest.metrics.examples == 10 for manifest in manifests)
    assert all(manifest.metrics.examples_per_second > 0 for manifest in manifests)
    for manifest in manifests:
        runner.store.verify(manifest)


def test_walk_again_adopts_every_stage_without_a_training_step(tmp_path):
    def never(*_: object) -> None:
        raise AssertionError("a stage was trained again")

    first = walked(tiny_job(), tmp_path)
    assert [chain.attempts[-1].manifest for chain in walk(*start(tiny_job(), tmp_path, never))] == first


def test_walk_in_another_store_gives_the_same_weights(tmp_path):
    assert weights(walked(tiny_job(), tmp_path / "a")) == weights(walked(tiny_job(), tmp_path / "b"))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_walk_interrupted_and_continued_gives_the_same_weights(tmp_path, dropout):
    job = tiny_job(model={"layers": 1, "width": 16, "heads": 2, "dropout": dropout})
    walked(job, tmp_path / "interrupted", stages=2)
    torch.rand(1)
    assert weights(walked(job, tmp_path / "interrupted")) == weights(walked(job, tmp_path / "whole"))


def test_walk_with_another_seed_gives_other_weights(tmp_path):
    other = tiny_job().model_copy(update={"seeds": (1,)})
    assert set(weights(walked(tiny_job(), tmp_path))).isdisjoint(weights(walked(other, tmp_path)))


def test_walk_of_a_repaired_store_trains_only_what_is_missing(tmp_path):
    first = walked(tiny_job(), tmp_path)
    store = StageStore(tmp_path)
    store.forget(first[2].key)
    again = walked(tiny_job(), tmp_path)
    assert [manifest.attempt for manifest in again[:2] + again[3:]] == [m.attempt for m in first[:2] + first[3:]]
    assert weights([again[2]]) == weights([first[2]])


def test_walk_refuses_to_start_from_damaged_weights(tmp_path):
    (first,) = walked(tiny_job(), tmp_path, stages=1)
    path = StageStore(tmp_path).folder(first) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(StoreError, match="SHA-256"):
        walked(tiny_job(), tmp_path)


def test_walk_without_restarts_stops_at_a_stage_that_diverges_and_keeps_its_record(tmp_path):
    stability = {"restarts": False}
    job = tiny_job(
        stability=stability,
        training={"batch_size": 64, "learning_rate": 1.0, "weight_decay": 1e38, "precision": "fp32"},
    )
    manifests = walked(job, tmp_path)
    assert [manifest.verdict for manifest in manifests] == ["diverged"]
    assert weights(manifests) == []
    assert walked(job, tmp_path) == manifests


@pytest.mark.parametrize("method", ["no_cot", "explicit_cot"])
def test_walk_of_a_baseline_measures_what_the_baseline_writes(tmp_path, method):
    job = tiny_job().model_copy(update={"methods": (method,)})
    left = {"no_cot": 0, "explicit_cot": COT_TOKENS}[method]
    for manifest in walked(job, tmp_path):
        assert manifest.metrics.total_tokens - manifest.metrics.removed_tokens == left


def trained_with(job: Job, root: Path) -> list[str]:
    return weights(walked(job, root))


def test_optimizer_is_reset_at_removals_and_only_there(tmp_path):
    training = {"learning_rate": 5e-3, "batch_size": 64, "precision": "fp32"}
    reset = trained_with(tiny_job(training=training), tmp_path / "reset")
    kept = trained_with(tiny_job(training=training | {"reset_optimizer": False}), tmp_path / "kept")
    assert reset[:2] == kept[:2]
    assert all(a != b for a, b in zip(reset[2:], kept[2:], strict=True))


def test_right_side_removal_resets_the_optimizer_too(tmp_path):
    schedule = {"tokens_per_stage": 3, "stage_steps": 6, "removal_side": "right"}
    training = {"learning_rate": 5e-3, "batch_size": 64, "precision": "fp32"}
    jobs = [tiny_job(schedule=schedule, training=training | {"reset_optimizer": reset}) for reset in (True, False)]
    reset, kept = (trained_with(job, tmp_path / str(i)) for i, job in enumerate(jobs))
    assert reset[1] != kept[1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_smoothing_with_kept_positions_trains(tmp_path, side):
    schedule = {"tokens_per_stage": 3, "stage_steps": 6, "keep_position": True, "smoothing_lambda": 0.5}
    manifests = walked(tiny_job(schedule=schedule | {"removal_side": side}), tmp_path)
    assert [manifest.verdict for manifest in manifests] == ["good"] * 3


def held_out_rows(data: JobData) -> Iterator[tuple[int, ...]]:
    table = data.validation
    for row in range(len(table)):
        begin = table.offsets[row]
        yield tuple(table.tokens[begin : begin + table.cot_start[row] - 1].tolist())


def test_data_is_tokenized_once_and_read_from_the_same_file(tmp_path):
    store = StageStore(tmp_path)
    first = prepare_data(tiny_job(), store)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.arrow")}
    second = prepare_data(tiny_job(), store)
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.arrow")}
    assert len(files) == 2
    assert (first.train.tokens == second.train.tokens).all()
    assert first.total_tokens == second.total_tokens == COT_TOKENS


def test_data_holds_the_papers_training_string(data):
    table, words = data.validation, data.tokenizer
    example = next(iter(data.task.examples("validation")))
    text = words.convert_ids_to_tokens(table.tokens[: table.offsets[1]].tolist())
    end = words.eos_token
    expected = f"{example.question} {end} {example.cot} {end} #### {example.answer} {end}"
    assert text == expected.split()
    assert text[table.cot_start[0] : table.cot_end[0]] == example.cot.split()
    assert table.answers[0] == example.answer
    assert len(set(held_out_rows(data))) == len(table)
