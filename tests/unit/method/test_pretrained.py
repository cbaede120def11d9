"""Checkpoints of the usual shapes, small and random: loaded, trained through a removal, measured, saved, loaded."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoModelForCausalLM as AnyModel
from transformers import (
    BertConfig,
    BloomConfig,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    pipeline,
)
from transformers.models.llama.modeling_llama import LlamaAttention

from orchestrator.commands.export import export_stage
from orchestrator.commands.predict import TrainedStage
from orchestrator.config import Evaluation, Job
from orchestrator.errors import InputError
from orchestrator.method.decoding import greedy
from orchestrator.method.encoding import prompt_ids
from orchestrator.method.evaluate import Evaluator, Removed
from orchestrator.method.icot_kd.thoughts import load_coupled
from orchestrator.method.models.model import initial_model, load_weights, stage_model, whole_model
from orchestrator.plan import build_plan
from orchestrator.results.find import find_stage
from orchestrator.store import Manifest, StageStore, save_job
from orchestrator.trials.data import JobData, prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import walk

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY = ["<s>", "</s>", "<unk>", *"0123456789", "*", "+", "(", ")", "####", "spare"]
BOS, EOS, UNKNOWN = 0, 1, 2
ROPE = {
    "vocab_size": 24,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": None,
}
GPT2 = GPT2Config(vocab_size=24, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=EOS, eos_token_id=EOS)


class Shape(NamedTuple):
    """A kind of checkpoint, and what its tokenizers do."""

    config: PretrainedConfig
    bos: bool
    pad: str | None
    bytes: bool = False
    """A byte-level BPE like GPT-2's, for which blanks belong to words."""


HASTY = {"tokens_per_stage": 6, "stage_steps": 6}
"""Two stages of a few steps."""

SHAPES = {
    "gpt2": Shape(GPT2, False, None),
    "gpt2 bytes": Shape(GPT2Config(**GPT2.to_dict() | {"vocab_size": 280}), False, None, bytes=True),
    "llama": Shape(LlamaConfig(**ROPE), True, None),
    "mistral": Shape(MistralConfig(**ROPE, sliding_window=8), True, None),
    "phi3": Shape(Phi3Config(**ROPE | {"pad_token_id": EOS}), False, "</s>"),
    "qwen2": Shape(Qwen2Config(**ROPE, tie_word_embeddings=True), False, "<unk>"),
}


def save_checkpoint(folder: Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> Path:
    torch.manual_seed(0)
    AnyModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(
    *, bos: bool = False, pad: str | None = None, eos: str | None = "</s>", bos_token: str = "<s>", after: str = ""
) -> PreTrainedTokenizerFast:
    """One token a symbol. ``bos``: it begins every text with one, as Llama's does; ``after``: ends it with that."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Fuse()
    if bos or after:
        template = f"{bos_token if bos else ''} $A {after}".strip()
        special = [(word, VOCABULARY.index(word)) for word in {bos_token, "</s>"}]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token=bos_token, eos_token=eos, pad_token=pad
    )


def make_byte_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    backend.train_from_iterator([" 0 1 2 3 4 5 6 7 8 9 * + #### ####"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def make_job(folder: Path, **tables: dict[str, Any]) -> Job:
    model = {"type": "pretrained", "name": str(folder)} | tables.pop("model", {})
    return Job.model_validate(
        {
            "name": "local",
            "task": {"digits": [1, 2]},
            "model": model,
            "schedule": {"pretrain_steps": 40, "tokens_per_stage": 6, "stage_steps": 6},
            "training": {"learning_rate": 5e-3, "batch_size": 32, "precision": "fp32"},
            "evaluation": {"examples": 12, "speed_examples": 1, "speed_batch": 1},
            "stability": {"probe_examples": 12},
        }
        | tables
    )


class Walked(NamedTuple):
    """A finished trial."""

    job: Job
    data: JobData
    store: StageStore
    manifests: list[Manifest]

    def model(self, stage: int) -> PreTrainedModel:
        return stage_model(self.job.model, self.store.folder(self.manifests[stage]))


def walked(job: Job, root: Path, stages: int | None = None) -> Walked:
    store = StageStore(root)
    data = prepare_data(job, store)
    runner = StageRunner(Workplace(job, data, store))
    chains = walk(build_plan(job, data.total_tokens).trials[0], runner)
    manifests = [chain.attempts[-1].manifest for _, chain in zip(range(stages or 99), chains, strict=False)]
    return Walked(job, data, store, manifests)


@pytest.fixture(scope="module", params=SHAPES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    shape, root = SHAPES[request.param], tmp_path_factory.mktemp(request.param)
    tokenizer = make_byte_tokenizer() if shape.bytes else make_tokenizer(bos=shape.bos, pad=shape.pad)
    folder = save_checkpoint(root / "checkpoint", shape.config, tokenizer)
    yield walked(make_job(folder), root / "store")


def evaluator(run: Walked) -> Evaluator:
    return Evaluator(
        run.data.validation,
        run.data.tokenizer,
        run.data.task.is_correct,
        Evaluation(examples=12),
        token_is_symbol=False,
    )


def test_checkpoint_is_trained_through_a_removal_measured_saved_and_loaded(trained: Walked) -> None:
    assert [m.metrics.removed_tokens for m in trained.manifests][-1] == trained.data.total_tokens
    assert all(m.passed for m in trained.manifests)
    for manifest in trained.manifests:
        again = evaluator(trained).accuracy(load_weights(trained.store.folder(manifest)), _removed(manifest))
        assert again.exact_match == manifest.metrics.exact_match
        assert again.loss == pytest.approx(manifest.metrics.validation_loss, rel=1e-5)
    assert trained.manifests[0].metrics.validation_loss < 2.4  # a random one: ln 24 = 3.2 or ln 280 = 5.6


def test_verified_accuracy_is_that_of_decoding_everything(trained: Walked) -> None:
    for stage, manifest in enumerate(trained.manifests):
        model, measures = trained.model(stage), evaluator(trained)
        decoded = measures.accuracy(model, _removed(manifest), verify=False)
        assert decoded == measures.accuracy(model, _removed(manifest))
        assert decoded.exact_match == manifest.metrics.exact_match


def test_our_decoding_writes_what_generate_writes(trained: Walked) -> None:
    model, tokenizer = trained.model(0), trained.data.tokenizer
    for example in list(trained.data.task.examples("validation"))[:5]:
        ids = prompt_ids(example.question, tokenizer)
        prompt = torch.tensor([ids])
        [ours] = greedy(model, prompt, torch.arange(len(ids))[None], EOS, [30])
        theirs = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=30, eos_token_id=-1
        )
        assert theirs[0, len(ids) : len(ids) + len(ours)].tolist() == ours


def _removed(manifest: Manifest) -> Removed:
    return Removed(manifest.metrics.removed_tokens)


@pytest.mark.parametrize(
    ("tokenizer", "first"),
    [
        (make_tokenizer(bos=True), [BOS]),
        (make_tokenizer(bos=True, bos_token="</s>"), [EOS]),
        (make_tokenizer(bos=True, after="</s>"), [BOS]),
        (make_tokenizer(after="</s>"), []),
    ],
    ids=["bos", "bos that is eos", "bos and eos", "eos after"],
)
def test_what_a_tokenizer_adds_is_kept_in_front_and_left_out_at_the_end(tmp_path: Path, tokenizer, first) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", GPT2, tokenizer)
    data = prepare_data(make_job(folder), StageStore(tmp_path / "store"))
    plain = save_checkpoint(tmp_path / "plain", GPT2, make_tokenizer())
    expected = prepare_data(make_job(plain), StageStore(tmp_path / "store")).validation
    begin, end = data.validation.offsets[:2]
    assert data.validation.tokens[begin:end].tolist() == first + expected.tokens[: expected.offsets[1]].tolist()
    assert data.validation.cot_start[0] == expected.cot_start[0] + len(first)
    measures = Evaluator(
        data.validation, data.tokenizer, data.task.is_correct, Evaluation(examples=4), token_is_symbol=False
    )
    assert measures.mark_tokens == 1


def test_thoughts_of_icot_kd_go_to_the_separator_and_not_to_a_bos_that_is_the_same_token(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", GPT2, make_tokenizer(bos=True, bos_token="</s>"))
    epochs = {"teacher_epochs": 0.4, "student_epochs": 0.2, "emulator_epochs": 0.2, "coupling_epochs": 0.2}
    run = walked(make_job(folder, methods=["icot_kd"], icot_kd=epochs), tmp_path / "store")
    coupled = load_coupled(run.store.folder(run.manifests[-1]))
    ids = torch.tensor([prompt_ids("3 * 2 1", run.data.tokenizer)])
    at = torch.tensor([ids.shape[1] - 1])
    assert ids[0, 0] == ids[0, at] == EOS
    with torch.no_grad():
        expected = coupled.student(coupled.emulator(ids, at), at, input_ids=ids).logits
        assert torch.equal(coupled(ids).logits, expected)


def test_gpt2_gets_the_positions_it_lacks(tmp_path: Path) -> None:
    config = GPT2Config(**GPT2.to_dict() | {"n_positions": 12})
    folder = save_checkpoint(tmp_path / "checkpoint", config, make_tokenizer())
    with pytest.raises(InputError, match=r"MOD002.*12 positions.*17 tokens.*extend_positions"):
        prepare_data(make_job(folder), StageStore(tmp_path / "store"))
    run = walked(make_job(folder, model={"extend_positions": True}, schedule=HASTY), tmp_path / "store", stages=1)
    start = initial_model(run.job.model, run.data.tokenizer, run.data.longest, 0).transformer.wpe.weight
    assert start.shape == (17, 32)
    assert torch.equal(start[12:], start[11].expand(5, -1))
    saved = load_weights(run.store.folder(run.manifests[0]))
    assert saved.config.n_positions == 17
    assert not torch.equal(saved.transformer.wpe.weight[15], saved.transformer.wpe.weight[16])


def test_rotary_model_gets_the_positions_it_lacks(tmp_path: Path) -> None:
    short = LlamaConfig(**ROPE | {"max_position_embeddings": 12})
    folder = save_checkpoint(tmp_path / "checkpoint", short, make_tokenizer())
    run = walked(make_job(folder, model={"extend_positions": True}, schedule=HASTY), tmp_path / "store", stages=1)
    assert run.model(0).config.max_position_embeddings == 17
    assert run.manifests[0].passed


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
@pytest.mark.parametrize("eos", [None, "</s>"])
def test_added_separator_is_learnt_and_survives(tmp_path: Path, shape: str, eos: str | None) -> None:
    config = type(SHAPES[shape].config)(**SHAPES[shape].config.to_dict() | {"vocab_size": len(VOCABULARY)})
    folder = save_checkpoint(tmp_path / "checkpoint", config, make_tokenizer(eos=eos))
    run = walked(make_job(folder, model={"separator": "added"}), tmp_path / "store", stages=1)
    separator = len(VOCABULARY)
    assert run.data.tokenizer.eos_token_id == separator
    assert (run.data.validation.tokens == separator).sum() == 3 * len(run.data.validation)
    start = initial_model(run.job.model, run.data.tokenizer, run.data.longest, 0)
    embedded = start.get_input_embeddings().weight
    assert torch.allclose(embedded[separator], embedded[:separator].mean(0))
    model = run.model(0)
    assert model.config.eos_token_id == separator
    assert model.get_output_embeddings().weight.shape[0] == separator + 1
    assert run.manifests[0].metrics.validation_loss < 2.4


def test_text_with_eos_in_it_is_refused_unless_the_separator_is_another(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", GPT2, make_tokenizer())
    tokenizers = [
        prepare_data(make_job(folder, model={"separator": separator}), StageStore(tmp_path)).tokenizer
        for separator in ("eos", "added")
    ]
    with pytest.raises(InputError, match=r"PRE004.*separator"):
        prompt_ids("1 </s> * 3 2", tokenizers[0])
    assert EOS in prompt_ids("1 </s> * 3 2", tokenizers[1])


def test_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", GPT2, make_tokenizer(eos=None))
    with pytest.raises(InputError, match=r'MOD004.*no EOS token.*separator = "added"'):
        prepare_data(make_job(folder), StageStore(tmp_path / "store"))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"num_hidden_layers": 3}, "weights are missing"),
        ({"num_hidden_layers": 1}, "belongs to a layer too many"),
        ({"hidden_size": 64}, r"has the shape \(.*32.*\), expected \(.*64.*\)"),
        ({"vocab_size": 99}, r"has the shape \(24, 32\), expected \(99, 32\)"),
    ],
    ids=str,
)
def test_checkpoint_of_another_shape_is_refused(tmp_path: Path, change: dict[str, int], found: str) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", SHAPES["llama"].config, make_tokenizer())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=f"MOD006.*{found}"):
        prepare_data(make_job(folder), StageStore(tmp_path / "store"))


def test_tokens_that_the_model_does_not_embed_are_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", LlamaConfig(**ROPE | {"vocab_size": 12}), make_tokenizer())
    with pytest.raises(InputError, match=r"MOD016.*embeds 12 tokens.*up to 17"):
        prepare_data(make_job(folder), StageStore(tmp_path / "store"))


JOB_TOML = """
name = "local"
[task]
digits = [1, 2]
[model]
type = "pretrained"
name = "{name}"
[schedule]
pretrain_steps = 4
tokens_per_stage = 2
stage_steps = 4
[evaluation]
examples = 12
"""


UNKNOWN = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}}
NOT_CAUSAL = DistilBertConfig(vocab_size=24, dim=16, n_layers=1, n_heads=2, hidden_dim=16).to_dict()


@pytest.mark.parametrize(
    ("config", "on_hub"),
    [(UNKNOWN, False), (UNKNOWN, True), (NOT_CAUSAL | {"auto_map": UNKNOWN["auto_map"]}, True)],
    ids=["unknown folder", "unknown", "not causal"],
)
def test_code_that_comes_with_a_model_is_refused_and_never_run(
    tmp_path: Path, monkeypatch, stepwise, config: dict[str, Any], on_hub: bool
) -> None:
    commit = "a" * 40
    cached = tmp_path / "hub" / "models--own--model"
    folder = save_checkpoint(cached / "snapshots" / commit, GPT2, make_tokenizer())
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "job.toml").write_text(JOB_TOML.format(name="own/model" if on_hub else folder))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    finished = stepwise("doctor", tmp_path / "job.toml", "--store", tmp_path / "store")
    assert finished.code == 2
    assert "MOD012" in finished.err and "never run" in finished.err
    assert not (tmp_path / "ran").exists()


def test_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    bert = BertConfig(vocab_size=24, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    folder = save_checkpoint(tmp_path / "checkpoint", bert, make_tokenizer())
    with pytest.raises(InputError, match=r"MOD013.*bert.*later tokens"):
        walked(make_job(folder), tmp_path / "store", stages=1)


def test_model_without_positions_is_refused(tmp_path: Path) -> None:
    bloom = BloomConfig(vocab_size=24, hidden_size=32, n_layer=2, n_head=4)
    folder = save_checkpoint(tmp_path / "checkpoint", bloom, make_tokenizer())
    with pytest.raises(InputError, match=r"MOD008.*bloom.*no number of positions"):
        prepare_data(make_job(folder, model={"extend_positions": True}), StageStore(tmp_path / "store"))


def test_positions_that_cannot_be_extended_are_refused_before_training(tmp_path: Path) -> None:
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    short = LlamaConfig(**ROPE | {"max_position_embeddings": 12, "rope_parameters": scaled})
    folder = save_checkpoint(tmp_path / "checkpoint", short, make_tokenizer())
    with pytest.raises(InputError, match=r"MOD007.*llama.*cannot be extended"):
        prepare_data(make_job(folder, model={"extend_positions": True}), StageStore(tmp_path / "store"))


def test_positions_that_cannot_be_extended_are_refused_where_only_long_training_examples_need_them(tmp_path) -> None:
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    short = LlamaConfig(**ROPE | {"max_position_embeddings": 18, "rope_parameters": scaled})
    folder = save_checkpoint(tmp_path / "checkpoint", short, make_tokenizer())
    examples = {name: tmp_path / name for name in ("train.txt", "valid.txt")}
    examples["train.txt"].write_text(f"1 * 2||{'3 ' * 30}#### 2\n" + "1 * 3||1 #### 3\n" * 40)
    examples["valid.txt"].write_text("1 * 3||1 #### 3\n" * 12)
    task = {"type": "text", "train": str(examples["train.txt"]), "validation": str(examples["valid.txt"])}
    training = {"max_train_tokens": 16, "batch_size": 32}
    job = make_job(folder, model={"extend_positions": True}, task=task, training=training, schedule=HASTY)
    with pytest.raises(InputError, match=r"MOD007.*cannot be extended"):
        walked(job, tmp_path / "store", stages=1)


@pytest.mark.parametrize(("shape", "found"), [("gpt2", "MOD011.*no token for 1"), ("llama", "MOD001.*tokenizer")])
def test_model_without_its_tokenizer_is_refused(tmp_path: Path, shape: str, found: str) -> None:
    torch.manual_seed(0)
    AnyModel.from_config(SHAPES[shape].config).save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(InputError, match=found):
        prepare_data(make_job(tmp_path / "checkpoint"), StageStore(tmp_path / "store"))


@pytest.mark.parametrize("verb", ["plan", "run", "doctor"])
def test_folder_that_is_not_there_is_refused(tmp_path: Path, stepwise, verb: str) -> None:
    (tmp_path / "job.toml").write_text(JOB_TOML.format(name="./models/none"))
    refused = stepwise(verb, tmp_path / "job.toml", "--store", tmp_path / "store")
    assert refused.code == 2 and "MOD015" in refused.err and "no folder ./models/none (from " in refused.err


def test_revision_of_a_local_folder_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", GPT2, make_tokenizer())
    with pytest.raises(InputError, match=r"MOD009.*model.revision.*local folder"):
        prepare_data(make_job(folder, model={"revision": "v1"}), StageStore(tmp_path / "store"))


@pytest.mark.parametrize("what", ["model.safetensors", "tokenizer.json"])
def test_git_lfs_pointer_in_place_of_a_models_file_is_refused(tmp_path: Path, what: str) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", GPT2, make_tokenizer())
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
    (folder / what).write_text(pointer)
    with pytest.raises(InputError, match=rf"MOD014.*{what}.*Git LFS pointer"):
        prepare_data(make_job(folder), StageStore(tmp_path / "store"))


@contextmanager
def passes() -> Iterator[list[None]]:
    """One entry for every time that a layer of a Llama attends, again for a backward pass included."""
    seen: list[None] = []
    with register_module_forward_hook(
        lambda module, given, made: seen.append(None) if isinstance(module, LlamaAttention) else None
    ):
        yield seen


@pytest.mark.parametrize(
    "resources", [{"micro_batch": 5}, {"micro_batch_tokens": 60}, {"gradient_checkpointing": True}], ids=str
)
def test_less_memory_is_the_same_work(tmp_path: Path, resources: dict[str, Any]) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", SHAPES["llama"].config, make_tokenizer())
    with passes() as whole:
        plain = walked(make_job(folder, schedule=HASTY), tmp_path / "plain", stages=1)
    with passes() as parts:
        lean = walked(make_job(folder, schedule=HASTY, resources=resources), tmp_path / "lean", stages=1)
    assert len(parts) > len(whole)
    assert [m.key for m in lean.manifests] == [m.key for m in plain.manifests]
    ours, theirs = (run.model(0).state_dict() for run in (lean, plain))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=2e-4, rtol=1e-3)


LORA: dict[str, Any] = {"lora_rank": 4, "lora_alpha": 8.0}


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_lora_stage_holds_adapters_and_is_continued_as_if_never_left(tmp_path: Path, shape: str) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", SHAPES[shape].config, make_tokenizer())
    job = make_job(folder, model=LORA, schedule=HASTY)
    whole = walked(job, tmp_path / "whole")
    assert [m.metrics.removed_tokens for m in whole.manifests] == [0, 6]
    walked(job, tmp_path / "halves", stages=1)
    halves = walked(job, tmp_path / "halves")
    adapters = [{f.path: f.sha256 for f in m.files}["adapter_model.safetensors"] for m in whole.manifests]
    assert [{f.path: f.sha256 for f in m.files}["adapter_model.safetensors"] for m in halves.manifests] == adapters
    assert len(set(adapters)) == 2
    assert "model.safetensors" not in {f.path for f in whole.manifests[0].files}
    start = initial_model(job.model, whole.data.tokenizer, whole.data.longest, 0)
    frozen = {name: weight for name, weight in whole.model(1).state_dict().items() if "lora" not in name}
    for name, weight in start.state_dict().items():
        if "lora" not in name:
            assert torch.equal(weight, frozen[name])


def test_lora_stage_is_a_model_for_transformers_and_merges(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", SHAPES["llama"].config, make_tokenizer())
    job = make_job(folder, model=LORA, schedule=HASTY)
    run = walked(job, tmp_path / "store", stages=1)
    stage = run.store.folder(run.manifests[0])
    ids = torch.tensor([[4, 5, 6, 1]])
    expected = run.model(0)(ids).logits
    torch.testing.assert_close(AnyModel.from_pretrained(stage, dtype=torch.float32)(ids).logits, expected)
    merged = whole_model(run.job.model, stage)
    torch.testing.assert_close(merged(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert not [name for name in merged.state_dict() if "lora" in name]


@pytest.mark.parametrize("other", [{"separator": "added"}, {"extend_positions": True}], ids=str)
def test_lora_with_something_new_to_embed_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="LoRA leaves the embeddings as they are"):
        make_job(tmp_path, model=LORA | other)


def test_fields_at_their_defaults_do_not_change_keys(tmp_path: Path) -> None:
    named = {"separator": "eos", "extend_positions": False, "lora_alpha": 32.0}
    resources = {"micro_batch": 4, "gradient_checkpointing": True}
    jobs = [make_job(tmp_path), make_job(tmp_path, model=named, resources=resources)]
    assert len({build_plan(job).trials[0].stages[-1].key for job in jobs}) == 1


def test_byte_level_model_is_asked_and_taken_home(tmp_path: Path) -> None:
    shape = SHAPES["gpt2 bytes"]
    folder = save_checkpoint(tmp_path / "checkpoint", shape.config, make_byte_tokenizer())
    job = make_job(folder, schedule={"pretrain_steps": 120, "tokens_per_stage": 7, "stage_steps": 60})
    run = walked(job, tmp_path / "store")
    assert run.data.total_tokens == 7  # the blank before the separator counts
    save_job(build_plan(job, 7), run.store)
    for stage, cot_is_over in ((0, ""), (2, "</s>")):
        place = find_stage(f"local:stepwise:{stage}", run.store)
        [said] = TrainedStage.load(place, run.store).answers(["3 * 2 1"])
        export_stage(place, run.store, tmp_path / f"home{stage}")
        prompt = f" 3 * 2 1 </s>{cot_is_over}"
        answer = pipeline("text-generation", str(tmp_path / f"home{stage}"))
        [output] = answer(prompt, return_full_text=False, skip_special_tokens=True)
        written = output["generated_text"].strip()
        assert written and said.written.startswith(written[:20])
