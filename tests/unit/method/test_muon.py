"""Muon: which matrices it takes, its update against torch's, and its state."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from orchestrator.config import Training
from orchestrator.method.muon import Muon, hidden_matrices, orthogonalized
from orchestrator.method.optimizer import Optimizer

MUON = Training(optimizer="muon", learning_rate=2e-3, beta2=0.99, reset_optimizer=False)


def gpt2(seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=17, n_positions=24, n_layer=2, n_embd=16, n_head=2, **still))


def take_steps(model: GPT2LMHeadModel, optimizer: Optimizer, seeds: range) -> None:
    for seed in seeds:
        tokens = torch.randint(17, (4, 12), generator=torch.Generator().manual_seed(seed))
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step(1.0)


def test_hidden_matrices_of_gpt2_are_those_of_its_blocks_with_query_key_and_value_apart():
    model = gpt2()
    found = hidden_matrices(model)
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert [(names[id(m.weight)], len(m.parts)) for m in found[:4]] == [
        ("transformer.h.0.attn.c_attn.weight", 3),
        ("transformer.h.0.attn.c_proj.weight", 1),
        ("transformer.h.0.mlp.c_fc.weight", 1),
        ("transformer.h.0.mlp.c_proj.weight", 1),
    ]
    assert len(found) == 8
    assert [tuple(found[0].weight[part].shape) for part in found[0].parts] == [(16, 16)] * 3


def test_head_and_embeddings_stay_with_adamw_also_where_they_are_two():
    shape = {"vocab_size": 17, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, tie_word_embeddings=False))
    outside = {id(model.lm_head.weight), id(model.model.embed_tokens.weight)}
    found = hidden_matrices(model)
    assert len(found) == 7
    assert outside.isdisjoint(id(matrix.weight) for matrix in found)


def test_fused_projections_with_fewer_keys_than_queries_are_cut_where_they_meet():
    shape = {"vocab_size": 17, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "pad_token_id": 0}
    model = Phi3ForCausalLM(Phi3Config(**shape, num_attention_heads=4, num_key_value_heads=2))
    rows = {len(m.parts): [m.weight[part].shape[0] for part in m.parts] for m in hidden_matrices(model)}
    assert rows[3] == [16, 8, 8]
    assert rows[2] == [24, 24]


def test_an_update_is_torchs_own():
    """In fp32, where torch iterates in bf16: equal up to that."""
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Linear(32, 12, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    reference = torch.optim.Muon(theirs.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    muon = Muon(hidden_matrices_of(ours), weight_decay=0.1)
    for seed in range(3):
        gradient = torch.randn(12, 32, generator=torch.Generator().manual_seed(seed))
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        muon.step(0.02)
        reference.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=2e-3)
    assert not torch.allclose(ours.weight, torch.nn.Linear(32, 12).weight, atol=2e-2)


def hidden_matrices_of(layer: torch.nn.Linear) -> list:
    from orchestrator.method.muon import HiddenMatrix

    return [HiddenMatrix(layer.weight, ((slice(None), slice(None)),))]


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (16, 64), (3, 50)])
def test_orthogonalized_matrices_have_singular_values_near_one(rows, columns):
    matrices = torch.randn(5, rows, columns, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalized(matrices))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_training_goes_on_bit_for_bit_from_saved_state():
    whole, halves = gpt2(), gpt2()
    without_break, before = Optimizer(whole, MUON), Optimizer(halves, MUON)
    take_steps(whole, without_break, range(6))
    take_steps(halves, before, range(3))
    after = Optimizer(halves, MUON)
    after.load({name: tensor.clone() for name, tensor in before.tensors().items()})
    take_steps(halves, after, range(3, 6))
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(a, b)


def test_reset_forgets_momenta_and_moments():
    model = gpt2()
    optimizer = Optimizer(model, MUON)
    take_steps(model, optimizer, range(2))
    assert any(bool(momentum.any()) for momentum in optimizer.muon.momenta)
    optimizer.reset()
    assert not any(bool(momentum.any()) for momentum in optimizer.muon.momenta)
    assert not optimizer.adamw.state


def test_loss_falls():
    model = gpt2()
    optimizer = Optimizer(model, MUON)
    tokens = torch.randint(17, (4, 12), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(20):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step(1.0)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]
    assert sum(a > b for a, b in pairwise(losses)) > 15
