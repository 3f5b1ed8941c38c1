"""DCCM's losses and pair selection against the reference vectors, hand-made graphs and the degenerate cases."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dica.files import UserError
from dica.losses.dccm import (
    dccm_loss,
    mutual_information_loss,
    pseudo_graph_loss,
    pseudo_label_loss,
    select_pairs,
    targets,
)
from vectors_check import cases, check


def total(x, o):
    loss, parts = dccm_loss(**x, **o)
    return {"loss": loss, **parts}


EQUATIONS = {
    "dccm.targets": lambda x, o: targets(x["z"], **o)._asdict(),
    "dccm.L_PG": lambda x, o: {"loss": pseudo_graph_loss(**x)},
    "dccm.L_PL": lambda x, o: {"loss": pseudo_label_loss(**x, **o)},
    "dccm.L_MI": lambda x, o: {"loss": mutual_information_loss(**x)},
    "dccm.total": total,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def kept(values, keep):
    """Values of each row that its mask keeps, as sets."""
    return [
        {v for v, k in zip(row, flags, strict=True) if k}
        for row, flags in zip(values.tolist(), keep.tolist(), strict=True)
    ]


@pytest.mark.parametrize(("case", "dtype"), cases("dccm", *EQUATIONS))
def test_reference_vectors(case, dtype):
    check(case, EQUATIONS[case.equation], dtype)


@pytest.mark.parametrize(("case", "dtype"), cases("dccm", "dccm.pairs"))
def test_selected_pairs_are_the_admissible_ones(case, dtype):
    """Random picks: 200 draws for each anchor must cover the listed partners and nothing else."""
    x, expected = case.tensors(dtype), case.expected
    pairs = select_pairs(x["s"], x["W"], **case.options, num_negatives=200, generator=generator())

    negatives = [set(n) if isinstance(n, list) else {n} for n in expected["negative"]]
    assert kept(pairs.negative, pairs.negative_keep) == negatives
    assert [i for i, row in enumerate(pairs.negative_keep.tolist()) if not any(row)] == expected["dropped"]

    assert pairs.positive_keep.all()
    if case.options["variant"] == "V4":
        chosen = list(zip(pairs.positive_anchor.tolist(), pairs.positive.tolist(), strict=True))
        assert sorted(chosen) == sorted(map(tuple, expected["positive"]))
        return
    assert pairs.positive_anchor.tolist() == expected["self"]
    if case.options["variant"] == "V3":
        draws = [select_pairs(x["s"], x["W"], variant="V3", generator=generator(i)) for i in range(60)]
        found = [set(column) for column in zip(*(draw.positive.tolist() for draw in draws), strict=True)]
        assert found == [set(p) for p in expected["positive"]]
    else:
        assert pairs.positive.tolist() == expected["positive"]


def test_random_negatives_are_uniform_and_follow_the_generator():
    s, W = torch.eye(5), torch.eye(5, dtype=torch.bool)
    W[0, 4] = W[4, 0] = True
    first = select_pairs(s, W, num_negatives=9000, generator=generator(1)).negative
    again = select_pairs(s, W, num_negatives=9000, generator=generator(1)).negative
    other = select_pairs(s, W, num_negatives=9000, generator=generator(2)).negative
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    shares = first[0].bincount(minlength=5) / 9000
    torch.testing.assert_close(shares, torch.tensor([0, 1 / 3, 1 / 3, 1 / 3, 0]), atol=0.02, rtol=0)


def test_v4_masks_the_missing_pairs_when_the_graph_has_fewer_than_n():
    s = torch.tensor([[1.0, 0.97, 0.1], [0.97, 1.0, 0.2], [0.1, 0.2, 1.0]])
    pairs = select_pairs(s, s >= 0.95, variant="V4", generator=generator())
    assert pairs.positive_keep.tolist() == [True, False, False]
    assert (pairs.positive_anchor[0], pairs.positive[0]) == (0, 1)


def test_code_mode_keeps_the_released_samplers_index_slip():
    """Row 0's first link is image 2, at place 1 once entry 0 is gone; row 2's is image 0, at place 0."""
    W = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]])
    pairs = select_pairs(W.float(), W, pair_mode="code")
    assert pairs.positive.tolist() == [1, 0, 0, 2]
    assert kept(pairs.negative, pairs.negative_keep) == [{1, 3}, {0, 2}, {1}, {0, 1}]
    unlinked = select_pairs(torch.eye(3), torch.eye(3), pair_mode="code")
    assert unlinked.positive.tolist() == [0, 0, 0]


@pytest.mark.parametrize("variant", ["V1", "V2", "V3", "V4"])
def test_batch_of_one_has_no_negative(variant):
    pairs = select_pairs(torch.ones(1, 1), torch.ones(1, 1), variant=variant, generator=generator())
    assert not pairs.negative_keep.any()
    assert pairs.positive.tolist() == [0]


def test_dropped_pairs_count_neither_in_sum_nor_in_mean():
    t_pos, t_neg = torch.randn(4, generator=generator()), torch.randn(4, 2, 3, generator=generator())
    keep = torch.tensor([[True, True], [False, False], [True, False], [True, True]])
    masked = mutual_information_loss(t_pos, t_neg, keep_neg=keep)
    torch.testing.assert_close(masked, mutual_information_loss(t_pos, t_neg[keep]))
    nothing = mutual_information_loss(t_pos, t_neg, keep_neg=torch.zeros_like(keep))
    torch.testing.assert_close(nothing, torch.nn.functional.softplus(-t_pos).mean())


def test_targets_may_come_from_an_earlier_pass():
    """The schedule fixes targets for a large batch, then trains on small ones."""
    logits, logits_t, old = torch.randn(3, 6, 4, generator=generator()) * 5
    given = targets(old.softmax(1).requires_grad_())
    assert not any(t.requires_grad for t in given)
    loss, parts = dccm_loss(logits, logits_t, variant="M3", given=given)
    torch.testing.assert_close(parts["L_PG"], pseudo_graph_loss(logits.softmax(1), given.W))
    torch.testing.assert_close(loss, parts["L_PG"] + parts["L_PG_t"] + 5 * (parts["L_PL"] + parts["L_PL_t"]))


@pytest.mark.parametrize("variant", ["M1", "M2", "M3"])
@pytest.mark.parametrize("label_loss", ["ce", "bce"])
@pytest.mark.parametrize("shape", [(6, 4), (6, 1), (1, 4)])
def test_saturated_outputs_that_contradict_the_targets_stay_finite(variant, label_loss, shape):
    """One-hot outputs make log 0 of both losses; one cluster and one image are the other extremes."""
    logits = torch.full(shape, -200.0).index_fill(1, torch.tensor([0]), 200.0).requires_grad_()
    logits_t = (-logits.detach()).requires_grad_()
    loss, _ = dccm_loss(logits, logits_t, variant=variant, label_loss=label_loss)
    loss.backward()
    assert torch.isfinite(loss)
    for x in (logits, logits_t):
        assert x.grad is None or torch.isfinite(x.grad).all()


def test_no_value_is_read_back_from_the_device():
    """Fake tensors have no values: any .item(), boolean-mask indexing or nonzero would raise."""
    with FakeTensorMode():
        logits, logits_t = torch.randn(2, 6, 4, requires_grad=True)
        given = targets(logits.softmax(1))
        for variant in ("V1", "V2", "V3", "V4"):
            pairs = select_pairs(given.s, given.W, variant=variant)
        select_pairs(given.s, given.W, pair_mode="code")
        loss, _ = dccm_loss(
            logits, logits_t, torch.randn(6), torch.randn(6, 2), keep_neg=pairs.negative_keep, given=given
        )
        loss.backward()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"label_loss": "mse"}, "label_loss"),
        ({"train_views": "original"}, "train_views"),
        ({"variant": "M5"}, "variant"),
        ({"variant": "M2"}, "logits_t"),
        ({"variant": "M1", "train_views": "transformed"}, "train_views"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(UserError, match=named):
        dccm_loss(torch.randn(3, 2), **options)


@pytest.mark.parametrize("options", [{"variant": "V5"}, {"pair_mode": "x"}, {"variant": "V2", "pair_mode": "code"}])
def test_wrong_pair_options_are_refused(options):
    with pytest.raises(UserError):
        select_pairs(torch.eye(3), torch.eye(3), **options)
