"""Reports: every number against one counted or computed by hand."""

import dataclasses
import json
import math
from itertools import combinations

import numpy as np
import pytest

from pixel_env.evaluation import at_k, bootstrap, evaluate, mean_interval, paired_difference, pass_at_k, wilson
from pixel_env.trajectory import Trajectory, Turn

FIRST = Trajectory(
    env_id="",
    env_kwargs={},
    task_id="t0",
    suite="search",
    needs_operation=True,
    seed=0,
    instructions="",
    first_observation="",
    first_digests=(),
    turns=(Turn("", "", (), 0.0, {}, None, None, malformed=False),),
    terminated=True,
    truncated=False,
    answer="A",
    parse_failure=False,
    correct=True,
    score=1.0,
    num_operations=1,
    num_errors=0,
    cue_coverage=1.0,
)


def made(**changes: object) -> Trajectory:
    return dataclasses.replace(FIRST, **changes)  # type: ignore[arg-type]


MALFORMED_TURN = dataclasses.replace(FIRST.turns[0], malformed=True)

EPISODES = [
    made(),
    made(correct=False, score=0.0, num_operations=3, num_errors=1, cue_coverage=0.5),  # the same task again
    made(task_id="t1", num_operations=0, cue_coverage=0.0, needs_operation=False),
    made(
        task_id="t2",
        correct=False,
        score=0.0,
        answer=None,
        terminated=False,
        truncated=True,
        num_operations=2,
        num_errors=2,
        cue_coverage=0.0,
        turns=(MALFORMED_TURN, MALFORMED_TURN, FIRST.turns[0]),
    ),
    made(task_id="r0", suite="read", correct=False, score=0.75, num_operations=0, cue_coverage=None),
    made(task_id="r1", suite="read", correct=False, score=0.0, parse_failure=True, num_operations=0, cue_coverage=None),
    made(task_id="r2", suite="read", correct=False, score=0.0, answer=None, error="TimeoutError: no reply"),
]


def test_counts_and_rates_by_hand() -> None:
    overall = evaluate(EPISODES).overall
    assert (overall.tasks, overall.episodes, overall.errors) == (5, 6, 1)
    # tasks weigh equally: t0 is right half of the time
    assert overall.accuracy is not None and overall.accuracy.mean == pytest.approx((0.5 + 1 + 0 + 0 + 0) / 5)
    assert overall.score is not None and overall.score.mean == pytest.approx((0.5 + 1 + 0 + 0.75 + 0) / 5)
    assert overall.rapr is not None and overall.rapr.mean == pytest.approx(1 / 5)  # only both episodes of t0 succeeded
    assert overall.rapr_needed == pytest.approx(2 / 5)  # two of five episodes on tasks that need it
    assert overall.mean_operations == pytest.approx((1 + 3 + 0 + 2 + 0 + 0) / 6)
    assert overall.operation_error_rate == pytest.approx((0 + 1 + 2) / 6)
    assert overall.malformed_rate == pytest.approx(2 / 8)  # turns, not episodes
    assert overall.parse_failure_rate == pytest.approx(1 / 5)  # of the five that answered
    assert overall.truncation_rate == pytest.approx(1 / 6)
    assert overall.cue_coverage == pytest.approx((1.0 + 0.5 + 0.0) / 3)  # of the three that called an operation


def test_suites_are_apart() -> None:
    suites = evaluate(EPISODES).suites
    assert list(suites) == ["read", "search"]
    assert (suites["read"].tasks, suites["read"].errors, suites["search"].episodes) == (2, 1, 4)
    read = suites["read"]
    assert read.operation_error_rate is None and read.cue_coverage is None  # nothing to divide by


def test_a_suite_of_errors_has_no_score() -> None:
    report = evaluate([made(error="MediaError: broken")])
    assert (report.overall.tasks, report.overall.errors) == (0, 1)
    assert report.overall.score is None and report.overall.accuracy is None and report.overall.truncation_rate is None
    assert "| - |" in report.to_markdown()


@pytest.mark.parametrize(
    ("mean", "n", "low", "high"),
    [
        (0.8, 10, 0.4902, 0.9433),  # 8 of 10; all five rows agree with published tables of Wilson's interval
        (0.5, 100, 0.4038, 0.5962),  # 50 of 100
        (0.0, 10, 0.0, 0.2775),  # nothing: the upper end is z^2 / (n + z^2)
        (1.0, 10, 0.7225, 1.0),  # everything: its mirror image
        (0.0, 1, 0.0, 0.7935),  # one trial
    ],
)
def test_wilson_by_hand(mean: float, n: int, low: float, high: float) -> None:
    interval = wilson(mean, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends_solve_their_equation() -> None:
    # Wilson's ends are the p at which the observed mean is 1.96 standard errors away.
    interval = wilson(0.3, 40)
    for p in (interval.low, interval.high):
        assert abs(0.3 - p) / np.sqrt(p * (1 - p) / 40) == pytest.approx(1.959963984540054)


def test_bootstrap_of_one_value_and_of_equal_values() -> None:
    assert dataclasses.astuple(bootstrap([0.25])) == (0.25, 0.25, 0.25)
    assert dataclasses.astuple(bootstrap([0.5] * 7)) == (0.5, 0.5, 0.5)


def test_bootstrap_is_close_to_the_normal_interval_and_seeded() -> None:
    values = np.random.default_rng(0).normal(size=400).tolist()
    interval = bootstrap(values, seed=3)
    half = 1.96 * np.std(values) / 20
    assert interval.low == pytest.approx(interval.mean - half, abs=0.01)
    assert interval.high == pytest.approx(interval.mean + half, abs=0.01)
    assert interval == bootstrap(values, seed=3)
    assert interval != bootstrap(values, seed=4)


def test_bootstrap_of_two_values_is_exact() -> None:
    # Means of two draws from {0, 1}: 0 with 1/4, 0.5 with 1/2, 1 with 1/4, so the 2.5% and 97.5% quantiles are 0 and 1.
    assert dataclasses.astuple(bootstrap([0.0, 1.0])) == (0.5, 0.0, 1.0)


def test_right_or_wrong_is_never_certain() -> None:
    found = evaluate([made(correct=False, score=0.0)]).overall
    assert found.score == found.accuracy == wilson(0.0, 1)  # not 0.0 [0.0, 0.0]
    assert at_k(samples(4, 4), k=2).average == at_k(samples(4, 4), k=2).any_right == wilson(1.0, 2)
    assert mean_interval([0.0, 0.5, 1.0], seed=3) == bootstrap([0.0, 0.5, 1.0], seed=3)


def test_forms_of_a_question_are_one_trial() -> None:
    turned = [made(task_id=f"t{q}{turn}", group=f"q{q}", correct=q == 0, score=float(q == 0), num_operations=q)
              for q in range(2) for turn in range(4)]  # fmt: skip
    overall = evaluate(turned).overall
    assert (overall.tasks, overall.questions) == (8, 2)
    assert overall.score == overall.accuracy == overall.rapr == wilson(0.5, 2) == at_k(turned, 1).any_right
    assert "| 8 (2 questions) |" in evaluate(turned).to_markdown()
    right = [dataclasses.replace(t, score=1.0, correct=True) for t in turned]
    assert paired_difference(right, turned) == dataclasses.astuple(bootstrap([0.0, 1.0]))


def test_paired_difference_by_hand() -> None:
    a = [made(task_id=f"t{i}", score=1.0) for i in range(20)]
    b = [made(task_id=f"t{i}", score=0.5) for i in reversed(range(20))]  # order does not matter
    assert paired_difference(a, b) == (0.5, 0.5, 0.5)  # every task differs by the same
    assert paired_difference(b, a) == (-0.5, -0.5, -0.5)


def test_paired_difference_is_narrower_than_the_scores() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(100)
    a = [made(task_id=f"t{i}", score=float(s + 0.1 + 0.01 * rng.random())) for i, s in enumerate(base)]
    b = [made(task_id=f"t{i}", score=float(s)) for i, s in enumerate(base)]
    mean, low, high = paired_difference(a, b)
    assert 0.1 < low < mean < high < 0.11
    score = evaluate(b).overall.score
    assert score is not None and score.high - score.low > 0.1


def test_paired_difference_over_groups_and_errors() -> None:
    a = [made(score=1.0), made(score=0.0), made(task_id="t1", score=1.0), made(task_id="t2", error="broken")]
    b = [made(score=0.0), made(task_id="t1", score=0.5), made(task_id="t2", score=1.0)]
    mean, _, _ = paired_difference(a, b)
    assert mean == pytest.approx((0.5 + 0.5) / 2)  # t2 was not finished on one side


def test_paired_difference_of_other_tasks() -> None:
    with pytest.raises(ValueError, match="got 2 tasks on one side only, such as t0"):
        paired_difference([made()], [made(task_id="t1")])
    with pytest.raises(ValueError, match="at least one task finished on both sides"):
        paired_difference([made(error="broken")], [made()])


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer() -> None:
    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(combinations([True] * c + [False] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_unbiased_where_the_plain_estimate_is_not() -> None:
    # With p right answers in the long run, pass@2 is 1 - (1 - p)^2. Expectation over the binomial of 4 answers:
    p, n, k = 0.3, 4, 2
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert sum(w * pass_at_k(n, c, k) for c, w in enumerate(weights)) == pytest.approx(1 - (1 - p) ** k)
    assert sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(weights)) < 1 - (1 - p) ** k - 0.01


def test_pass_at_k_of_many_answers_is_exact() -> None:
    assert pass_at_k(2000, 1, 1000) == 0.5  # the binomial coefficients have 600 digits


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 0), (4, 1, 5), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_pass_at_k_of_nonsense(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"got n={n}, c={c}, k={k}"):
        pass_at_k(n, c, k)


def samples(*rights: int, n: int = 4) -> list[Trajectory]:
    return [made(task_id=f"t{task}", correct=i < right) for task, right in enumerate(rights) for i in range(n)]


def test_at_k_by_hand() -> None:
    found = at_k(samples(0, 1, 4), k=2)
    assert found.average.mean == pytest.approx((0 + 1 / 4 + 1) / 3)
    assert found.any_right.mean == pytest.approx((0 + 1 / 2 + 1) / 3)  # 3 of 6 pairs hold the right one
    assert found.average.low < found.average.mean < found.average.high
    assert at_k(samples(0, 1, 4), k=2) == found  # seeded


def test_at_k_bootstraps_over_tasks_and_not_over_answers() -> None:
    found = at_k(samples(2, 2, 2), k=1)  # the tasks do not differ
    assert dataclasses.astuple(found.average) == (0.5, 0.5, 0.5)
    assert found.average == found.any_right  # k = 1


def test_at_k_leaves_out_what_broke_off() -> None:
    broken = made(task_id="t0", correct=True, error="TimeoutError: no reply")
    assert at_k([*samples(1), broken], k=4).average.mean == 0.25
    with pytest.raises(ValueError, match="at least k = 5 finished episodes a task, got 4 of t0"):
        at_k([*samples(1), broken], k=5)
    with pytest.raises(ValueError, match="at least k = 1 finished episodes a task, got 0 of t0"):
        at_k([broken], k=1)
    with pytest.raises(ValueError, match="at least one trajectory"):
        at_k([], k=1)
    with pytest.raises(ValueError, match="k=0"):
        at_k(samples(1), k=0)


def test_report_as_json_and_markdown() -> None:
    report = evaluate(EPISODES)
    stored = json.loads(report.to_json())
    assert stored["suites"]["search"]["episodes"] == 4
    assert stored["overall"]["score"]["mean"] == pytest.approx(0.45)
    lines = report.to_markdown().splitlines()
    assert len({line.count("|") for line in lines}) == 1  # a rectangle
    assert [line.split("|")[1].strip() for line in lines] == ["suite", "---", "read", "search", "all"]
    assert "45.0 [" in lines[-1]


def test_nothing_to_evaluate() -> None:
    with pytest.raises(ValueError, match="at least one trajectory"):
        evaluate([])
    with pytest.raises(ValueError, match="at least one trial"):
        wilson(0.5, 0)
