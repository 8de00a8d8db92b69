"""The reward terms against the worked numbers of the paper and of the release, and against a slow version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel_env.rewards import correctness, curiosity, curiosity_released, operation_penalty, rapr, shaped_rewards

USERS = [
    (0, 0.0, 0.0, 0.0),
    (1, 0.0875, 0.175, 7 / 30),
    (2, 0.025, 0.025, 1 / 30),
    (3, 0.0, 0.0, 0.0),
    (8, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("users", "paper", "image", "video"), USERS)
def test_curiosity_of_a_group_of_eight(users: int, paper: float, image: float, video: float) -> None:
    used = np.arange(8) < users
    np.testing.assert_allclose(curiosity(used), paper * used, atol=1e-12)
    np.testing.assert_allclose(curiosity_released(used, is_video=False), image * used, atol=1e-12)
    np.testing.assert_allclose(curiosity_released(used, is_video=True), video * used, atol=1e-12)


def test_the_dials_of_curiosity_do_something() -> None:
    used = [True, False, False, False]
    assert curiosity(used, alpha=1.0)[0] == pytest.approx(2 * curiosity(used)[0])
    assert curiosity(used, threshold=0.75)[0] == pytest.approx(0.25)  # 0.5 * (0.75 - 0.25)
    assert curiosity_released(used, is_video=False, threshold=0.75)[0] == pytest.approx(0.25)  # 0.5 / 2 / 0.25 * 0.25


def test_operation_penalty_by_hand() -> None:
    np.testing.assert_allclose(operation_penalty([0, 1, 2, 3, 5]), [0, 0, -0.05, -0.10, -0.20])
    np.testing.assert_allclose(operation_penalty([0, 1, 2], beta=1.0, limit=0), [0, -1, -2])
    assert operation_penalty(2).shape == ()
    assert not np.signbit(operation_penalty([0, 1])).any()  # zero, not minus zero


def test_correctness_and_rapr() -> None:
    assert (correctness(True), correctness(False)) == (1.0, 0.0)
    assert rapr([True, True, False, False, False, False, False, False]) == 0.25


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 6)), min_size=1, max_size=16))
def test_shaped_rewards_equal_the_formula_one_response_at_a_time(group: list[tuple[bool, bool, int]]) -> None:
    correct, used, counts = map(list, zip(*group, strict=True))
    terms = shaped_rewards(correct, used, counts)
    rate = sum(used) / len(used)
    for index, (r, one_pr, n_vo) in enumerate(group):
        expected = r + 0.5 * max(0.3 - rate, 0) * one_pr + 0.05 * min(1 - n_vo, 0)
        assert sum(term[index] for term in terms.values()) == pytest.approx(expected)


def test_shaped_rewards_released() -> None:
    used = [True] + [False] * 7
    for is_video, bonus in ((False, 0.175), (True, 7 / 30)):
        terms = shaped_rewards([False] * 8, used, [1] + [0] * 7, variant="released", is_video=is_video)
        assert terms["curiosity"][0] == pytest.approx(bonus)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"used of shape \(G,\) with G at least 1, got shape \(0,\)"):
        rapr([])
    with pytest.raises(ValueError, match=r"got shape \(2, 2\)"):
        curiosity([[True, False], [True, False]])
    with pytest.raises(ValueError, match="only True and False"):
        curiosity([0, 1, 2])  # counts instead of flags
    with pytest.raises(ValueError, match="counts of at least 0"):
        operation_penalty([-1])
    with pytest.raises(ValueError, match="counts of at least 0"):
        operation_penalty([0.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"of one shape \(G,\)"):
        shaped_rewards([True, False], [True, False], [1])
    with pytest.raises(ValueError, match="variant to be one of"):
        shaped_rewards([True], [True], [1], variant="other")  # type: ignore[arg-type]
