"""ICoT-KD: what its parts see, say and learn; their plan; and a whole trial in one process, interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from orchestrator.config import Evaluation, IcotKd, Job, MultiplicationTask, Schedule, ScratchModel, Training
from orchestrator.errors import InputError
from orchestrator.method.evaluate import Evaluator, Removed
from orchestrator.method.icot_kd.distil import Emulation, MindReading, begin_part
from orchestrator.method.icot_kd.thoughts import (
    Coupled,
    Emulator,
    Student,
    diagonal_positions,
    load_coupled,
    teacher_thoughts,
)
from orchestrator.method.models.model import load_weights
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.removal import Batch
from orchestrator.method.stage import StageSpec
from orchestrator.method.train import StageRun, Terms, train_stage
from orchestrator.plan import Plan, Trial, build_plan
from orchestrator.plan.fork import fork_plan
from orchestrator.report.html.page import report_html
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import frontier
from orchestrator.store import Manifest, StageStore, save_job
from orchestrator.trials.data import JobData, prepare_data
from orchestrator.trials.runner import Hooks, StageRunner, Workplace
from orchestrator.trials.walk import walk

E = 0
LAYERS, WIDTH = 3, 16
SHAPES: dict[str, tuple[type, type, dict[str, int]]] = {
    "gpt2": (GPT2Config, GPT2LMHeadModel, {}),
    "llama": (LlamaConfig, LlamaForCausalLM, {"intermediate_size": 32}),
    "mistral": (MistralConfig, MistralForCausalLM, {"intermediate_size": 32, "num_key_value_heads": 2}),
    "qwen": (Qwen2Config, Qwen2ForCausalLM, {"intermediate_size": 32, "num_key_value_heads": 2}),
    "phi": (Phi3Config, Phi3ForCausalLM, {"intermediate_size": 32, "pad_token_id": 0}),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def network(shape: str = "gpt2", seed: int = 0) -> PreTrainedModel:
    config, model, options = SHAPES[shape]
    torch.manual_seed(seed)
    names = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    return model(config(vocab_size=20, bos_token_id=E, eos_token_id=E, **names, **options)).eval()


def batch(*examples: tuple[int, int, int]) -> Batch:
    """Examples of so many question, CoT and answer tokens."""
    draw = torch.Generator().manual_seed(1)
    rows = [
        torch.cat([torch.cat([torch.randint(1, 20, (n,), generator=draw), torch.tensor([E])]) for n in parts])
        for parts in examples
    ]
    starts = torch.tensor([question + 1 for question, _, _ in examples])
    return Batch(
        nn.utils.rnn.pad_sequence(rows, batch_first=True),
        torch.tensor([len(row) for row in rows]),
        starts,
        starts + torch.tensor([cot for _, cot, _ in examples]),
    )


UNEQUAL = batch((3, 4, 2), (5, 9, 3))


def test_diagonal_rises_evenly_from_the_first_separator_to_the_second():
    """Positions of the released 4x4 and 5x5 data with GPT-2's 12 layers (research notes, method.md §3)."""
    positions_BL = diagonal_positions(torch.tensor([10, 12]), torch.tensor([58, 88]), 12)
    assert positions_BL.tolist() == [
        [10, 14, 19, 23, 27, 32, 36, 41, 45, 49, 54, 58],
        [12, 19, 26, 33, 40, 47, 53, 60, 67, 74, 81, 88],
    ]


def test_diagonal_of_a_single_layer_is_the_first_separator():
    assert diagonal_positions(torch.tensor([4]), torch.tensor([9]), 1).tolist() == [[4]]


@pytest.mark.parametrize("shape", SHAPES)
def test_thoughts_are_the_states_that_enter_the_layers_on_each_examples_own_diagonal(shape):
    teacher = network(shape)
    thoughts_BLH = teacher_thoughts(teacher, UNEQUAL)
    states = teacher(UNEQUAL.tokens_BL, attention_mask=torch.ones_like(UNEQUAL.tokens_BL), output_hidden_states=True)
    for example, positions in enumerate([(3, 6, 8), (5, 10, 15)]):  # 3 + 2.5 l to even, 5 + 5 l
        for layer, position in enumerate(positions):
            entering_H = states.hidden_states[layer][example, position]
            assert torch.allclose(thoughts_BLH[example, layer], F.layer_norm(entering_H, (WIDTH,)), atol=1e-5)


def asked(tokens: torch.Tensor) -> dict[str, Any]:
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "use_cache": False}


@pytest.mark.parametrize("shape", SHAPES)
def test_student_finds_the_thoughts_at_the_separator_and_nowhere_before(shape):
    student, tokens, at = Student(network(shape)), torch.tensor([[5, 6, E, E, 7]]), torch.tensor([2])
    with torch.no_grad():
        plain = student.network(**asked(tokens)).logits
        one, other = (student(torch.full((1, LAYERS, WIDTH), x), at, **asked(tokens)).logits for x in (0.5, -0.5))
    assert torch.allclose(plain[:, :2], one[:, :2], atol=1e-6)
    differs = (one - other).abs().amax(-1)[0] > 1e-4
    assert differs.tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("shape", SHAPES)
def test_emulator_says_one_thought_a_layer_and_sees_the_question_alone(shape):
    emulator, at = Emulator(network(shape), 1, 0.05), torch.tensor([2, 3])
    tokens = torch.tensor([[5, 6, E, 9, 9, 9], [5, 6, 7, E, 9, 9]])
    with torch.no_grad():
        thoughts_BLH, again = emulator(tokens, at), emulator(tokens.where(tokens != 9, 11), at)
        asked_otherwise = emulator(tokens.where(tokens != 6, 11), at)
    assert thoughts_BLH.shape == (2, LAYERS, WIDTH)
    assert torch.equal(thoughts_BLH, again)
    assert torch.allclose(thoughts_BLH[:, 0], asked_otherwise[:, 0])  # the embedding of the separator
    assert not torch.allclose(thoughts_BLH[:, 1:], asked_otherwise[:, 1:], atol=1e-6)


def test_emulator_goes_through_its_recurrence_from_layer_to_layer():
    emulator, tokens, at = Emulator(network(), 1, 0.05), torch.tensor([[5, 6, E]]), torch.tensor([2])
    blocks, heads = emulator.network.transformer.h, emulator.heads
    with torch.no_grad():
        thoughts_LH = emulator(tokens, at)[0]
        states_SH = emulator.network.transformer.wte(tokens)[0] + emulator.network.transformer.wpe.weight[:3]
        memory, context, keys = (torch.zeros(1, WIDTH),) * 2, torch.zeros(WIDTH), []
        for layer in range(LAYERS):
            seen = torch.cat([states_SH[2], heads["mixture"].weight[0]])
            thought = heads["predict"][layer](seen)
            assert torch.allclose(thought, thoughts_LH[layer], atol=1e-5)
            memory = heads["recurrence"]((thought + context)[None], memory)
            out = memory[0][0]
            if keys:
                earlier = torch.stack(keys)
                context = (earlier @ heads["query"](out)).softmax(0) @ earlier
            keys.append(heads["key"](out))
            states_SH = torch.cat([states_SH[:2], heads["out"](torch.cat([out, context]))[None]])
            states_SH = blocks[layer](states_SH[None], attention_mask=torch.full((3, 3), -1e9).triu(1)[None, None])[0]


def test_mixture_is_the_most_alike_vector_when_cold_and_the_mean_when_hot():
    cold, hot = (Emulator(network(), 4, temperature) for temperature in (1e-4, 1e6))
    hot.heads["mixture"].load_state_dict(cold.heads["mixture"].state_dict())
    vectors_MH = cold.heads["mixture"].weight
    alike = (vectors_MH @ vectors_MH[2]).argmax()
    assert torch.allclose(cold.mixed(vectors_MH[2:3])[0], vectors_MH[alike])
    assert torch.allclose(hot.mixed(vectors_MH[2:3])[0], vectors_MH.mean(0), atol=1e-4)


def untouched(module: nn.Module) -> set[str]:
    return {name for name, weight in module.named_parameters() if weight.grad is None}


def test_mind_reading_teaches_the_student_and_leaves_the_teacher():
    part = MindReading(network(), Student(network()))
    summed, right_B = part(UNEQUAL)
    summed.backward()
    assert right_B.shape == (2,) and part.units(UNEQUAL) == (1 + 2 + 1) + (1 + 3 + 1)
    assert untouched(part) == {f"teacher.{name}" for name, _ in part.teacher.named_parameters()}


def test_emulation_is_half_the_squared_distance_and_teaches_all_that_is_used():
    part = Emulation(network(), Emulator(network(seed=1), 2, 0.05))
    summed, _ = part(UNEQUAL)
    summed.backward()
    distance = part.emulator(UNEQUAL.tokens_BL, UNEQUAL.cot_start_B - 1) - teacher_thoughts(part.teacher, UNEQUAL)
    assert summed.item() == pytest.approx(distance.square().sum().item() / 2)
    assert part.units(UNEQUAL) == 2
    unused = {name.split(".h.2.")[0] for name in untouched(part.emulator)}
    assert unused == {"network.transformer", "network.transformer.ln_f.weight", "network.transformer.ln_f.bias"}
    assert untouched(part.teacher) == {name for name, _ in part.teacher.named_parameters()}


def test_coupling_teaches_the_emulator_through_the_student():
    coupled = Coupled(Student(network()), Emulator(network(), 1, 0.05), E, 0)
    coupled(**asked(torch.tensor([[5, 6, E, E, 7]]))).logits[:, 3:].sum().backward()
    assert untouched(coupled.student) == set()
    last = coupled.emulator.heads["predict"][LAYERS - 1]
    assert all(weight.grad.abs().sum() > 0 for weight in last.parameters())


TASK = {"digits": [2, 1]}
SCHEDULE = {"tokens_per_stage": 2, "stage_steps": 50, "pretrain_steps": 120}
KD = {"teacher_epochs": 1, "student_epochs": 2, "emulator_epochs": 1.5, "coupling_epochs": 3}


def make_plan(**tables: Any) -> Plan:
    job = {"name": "x", "methods": ["stepwise", "explicit_cot", "icot_kd"], "task": TASK, "schedule": SCHEDULE}
    return build_plan(Job.model_validate(job | {"icot_kd": KD} | tables))


def chain_of(**tables: Any) -> Trial:
    return next(trial for trial in make_plan(**tables).trials if trial.method == "icot_kd")


def keys(**tables: Any) -> list[str]:
    return [stage.key for stage in chain_of(**tables).stages]


def test_plan_has_a_teacher_two_parts_that_it_teaches_and_one_that_needs_both():
    teacher, student, emulator, coupled = chain_of().stages
    assert [s.spec.kind for s in (teacher, student, emulator, coupled)] == [
        "train",
        "mind_reading",
        "thought_emulation",
        "coupling",
    ]
    assert (student.parents, emulator.parents) == ((teacher.key,), (teacher.key,))
    assert coupled.parents == (student.key, emulator.key)
    assert coupled.identity["parent"] == [student.key, emulator.key]
    assert [s.spec.steps for s in (student, emulator, coupled)] == [46, 34, 69]  # 23 steps an epoch
    assert [s.spec.first_step for s in (student, emulator, coupled)] == [120, 120, 166]
    assert [s.spec.removed_to for s in chain_of().stages] == [0, 3, 3, 3]


def rates(spec: StageSpec, data: JobData) -> list[float]:
    """The share of the learning rate at every step of a stage."""
    model, training = network(), Training(learning_rate=0.5, warmup_steps=0)
    optimizer, seen = Optimizer(model, training), []

    def objective(*step: object) -> Terms:
        seen.append(optimizer.adamw.param_groups[0]["lr"] / 0.5)  # of the step before
        return [next(model.parameters()).sum]

    train_stage(StageRun(model, optimizer, spec, data.train, training, None, objective=objective))
    return [*seen[1:], optimizer.adamw.param_groups[0]["lr"] / 0.5]


@pytest.mark.parametrize(
    ("options", "last"),
    [({}, [1, 1, 1]), ({"consolidation_stages": 2, "cooldown_stages": 1}, [1, 2 / 3, 1 / 3])],
    ids=["constant", "cools down"],
)
def test_parts_cool_down_over_their_last_three_tenths_in_a_job_that_cools_down(finished, options, last):
    _, _, data, _ = finished
    for stage in chain_of(schedule=SCHEDULE | options).stages[1:]:
        assert rates(replace(stage.spec, steps=10), data) == pytest.approx([1] * 7 + last)


def test_student_and_emulator_begin_as_their_teacher_ended_for_want_of_pretrained_weights(finished):
    plan, store, data, manifests = finished
    teacher = store.folder(manifests[0])
    trained = load_weights(teacher).state_dict()
    for stage in plan.trials[0].stages[1:3]:
        part = begin_part(stage.spec, [teacher], network, data.tokenizer)
        _, model = part.named_children()
        assert all(torch.equal(weight, trained[name]) for name, weight in model[1].network.state_dict().items())
        pretrained = begin_part(replace(stage.spec, as_teacher=False), [teacher], network, data.tokenizer)
        _, model = pretrained.named_children()
        assert all(torch.equal(w, network().state_dict()[name]) for name, w in model[1].network.state_dict().items())


def test_teacher_is_the_first_stage_of_stepwise_and_explicit_cot():
    plan = make_plan()
    assert plan.shared == {chain_of().stages[0].key}
    assert {trial.stages[0].key for trial in plan.trials} == plan.shared


def test_longer_teacher_is_more_of_explicit_cots_stages():
    explicit = next(trial for trial in make_plan().trials if trial.method == "explicit_cot")
    assert keys(icot_kd=KD | {"teacher_epochs": 7})[:2] == [stage.key for stage in explicit.stages[:2]]


def test_teacher_that_explicit_cot_is_too_short_for_is_refused():
    with pytest.raises(InputError, match=r"CFG034.*icot_kd.teacher_epochs: 100 exceeds the"):
        make_plan(icot_kd=KD | {"teacher_epochs": 100})
    make_plan(icot_kd=KD | {"teacher_epochs": 100}, methods=["stepwise"])


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"student_epochs": 3}, [False, True, False, True]),
        ({"emulator_epochs": 3}, [False, False, True, True]),
        ({"mixture_size": 4}, [False, False, True, True]),
        ({"coupling_epochs": 4}, [False, False, False, True]),
    ],
    ids=str,
)
def test_keys_change_from_the_part_on_whose_numbers_change(change, changed):
    assert [a != b for a, b in zip(keys(), keys(icot_kd=KD | change), strict=True)] == changed


def test_fork_after_the_student_keeps_it_and_has_a_new_emulator():
    trial = chain_of()
    teacher, student, emulator, _ = trial.stages
    forked = fork_plan(trial, student, (("training.learning_rate", 1e-4),), None).trials[0].stages
    assert forked[:2] == (teacher, student)
    assert forked[2].parents == (teacher.key,) and forked[2].key != emulator.key
    assert forked[3].parents == (student.key, forked[2].key)


def test_other_methods_keys_do_not_know_of_icot_kd():
    others = {"methods": ["no_cot", "explicit_cot", "stepwise"]}
    assert make_plan(**others, icot_kd={}).unique_stages.keys() == make_plan(**others).unique_stages.keys()


class Killed(BaseException):
    """The process ends here."""


def small_job() -> Job:
    return Job(
        name="kd",
        methods=("icot_kd",),
        task=MultiplicationTask(digits=(2, 1)),
        model=ScratchModel(layers=2, width=32, heads=2),
        schedule=Schedule(
            tokens_per_stage=3, stage_steps=30, pretrain_steps=40, consolidation_stages=1, cooldown_stages=1
        ),
        training=Training(learning_rate=5e-3),
        evaluation=Evaluation(speed_examples=2, speed_batch=4),
        icot_kd=IcotKd(student_epochs=1, emulator_epochs=1, coupling_epochs=2),
    )


def executed(folder: Path, killed_in: str = "") -> tuple[Plan, StageStore, JobData, list[Manifest]]:
    """A trial from wherever it is to its end, or to the first steps of the stage that it is killed in."""
    job, store = small_job(), StageStore(folder)
    data = prepare_data(job, store)
    plan, manifests = build_plan(job, data.total_tokens), []

    def watch(stage: Any, progress: Any) -> None:
        if stage.spec.kind == killed_in and progress.step:
            raise Killed

    runner = StageRunner(Workplace(plan.trials[0].job, data, store), Hooks(watch))
    with suppress(Killed):
        manifests = [chain.attempts[-1].manifest for chain in walk(plan.trials[0], runner)]
    return plan, store, data, manifests


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, StageStore, JobData, list[Manifest]]:
    """A trial that was killed in every part and begun again, and again after its end."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("kd")
    for part in ("mind_reading", "thought_emulation", "coupling"):
        executed(folder, killed_in=part)
    before = executed(folder)[3]
    after = executed(folder)
    assert [m.attempt for m in after[3]] == [m.attempt for m in before]
    return after


def test_killed_trial_ends_with_every_part_good_and_its_loss_fallen(finished):
    _, _, _, manifests = finished
    assert [(m.verdict, m.identity["stage"].get("kind", "train")) for m in manifests] == [
        ("good", "train"),
        ("good", "mind_reading"),
        ("good", "thought_emulation"),
        ("good", "coupling"),
    ]
    for manifest in manifests:
        first, last = manifest.metrics.blocks[0], manifest.metrics.blocks[-1]
        assert last.probe_loss < 0.95 * first.probe_loss
        assert last.train_loss < 0.95 * first.train_loss


def test_killed_trial_has_the_same_weights_as_one_that_was_not(finished, tmp_path):
    def weights(manifests: list[Manifest]) -> list[str]:
        return [f.sha256 for m in manifests for f in m.files if f.path.endswith(".safetensors")]

    assert weights(executed(tmp_path)[3]) == weights(finished[3])


def test_frontier_has_the_teacher_and_the_coupled_model_and_no_part_between(finished):
    plan, store, _, manifests = finished
    points = frontier(plan, store)
    assert [(p.stage, p.removed_tokens) for p in points] == [(0, 0), (3, 3)]
    assert points[-1].step == plan.trials[0].steps
    spent = sum(m.metrics.train_seconds + m.metrics.evaluate_seconds for m in manifests)
    assert sum(p.seconds for p in points) == pytest.approx(spent)
    assert points[-1].generated_tokens == 6  # two separators, ####, three digits
    assert points[-1].examples_per_second > 0


def test_report_shows_it_beside_the_others_and_says_how_to_load_it(finished):
    plan, store, _, _ = finished
    findings = Findings.of(plan, store)
    last = findings.trials[0].last
    assert (last.method, last.removed_tokens, last.step) == ("icot_kd", 3, plan.trials[0].steps)
    page = report_html(findings)
    assert "ICoT-KD, seed 0, stage 3: 3 removed" in page
    assert "load_coupled(folder)" in page


def test_folder_of_the_coupled_model_is_two_networks_that_answer_as_was_measured(finished):
    plan, store, data, manifests = finished
    folder, measured = store.folder(manifests[-1]), manifests[-1].metrics
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"student", "emulator"}
    evaluator = Evaluator(
        data.validation, data.tokenizer, data.task.is_correct, plan.job.evaluation, token_is_symbol=True
    )
    loaded = load_coupled(folder)
    for verify in (True, False):
        accuracy = evaluator.accuracy(loaded, Removed(data.total_tokens), verify=verify)
        assert accuracy.exact_match == measured.exact_match
    assert accuracy.loss == pytest.approx(measured.validation_loss, rel=1e-4)


def test_coupled_model_is_asked_by_its_name_and_no_pipeline_asks_it(finished, stepwise: Callable, tmp_path):
    plan, store, data, manifests = finished
    save_job(plan, store)
    examples = list(data.task.examples("validation"))
    questions = [example.question for example in examples]
    document = json.loads(stepwise("predict", "kd:icot_kd", *questions, "--store", store.root, "--json").out)
    answers = [prediction["answer"] for prediction in document["predictions"]]
    right = sum(answer == example.answer for answer, example in zip(answers, examples, strict=True))
    assert right / len(examples) == pytest.approx(manifests[-1].metrics.exact_match)
    for words, code in (
        (["predict", "kd:icot_kd:1", questions[0]], "PRE003"),
        (["export", "kd", tmp_path / "home"], "EXP004"),
        (["export", "kd:icot_kd:1", tmp_path / "home"], "EXP004"),
        (["probe", "kd"], "PRB003"),
        (["probe", "kd:icot_kd:1"], "PRB003"),
    ):
        refused = stepwise(*words, "--store", store.root)
        assert (refused.code, code in refused.err) == (2, True), refused.err
        assert code == "PRE003" or "trial's stage 0" in " ".join(refused.err.split())
    assert not (tmp_path / "home").exists()
    assert stepwise("export", "kd:icot_kd:0", tmp_path / "home", "--store", store.root).code == 0
