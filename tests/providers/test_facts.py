"""Every assumed fact of every seller: confirmed by a good order, broken by a reply that differs."""

from typing import Any

import pytest

from proxy.providers.facts import facts_of
from proxy.providers.registry import builtin
from proxy.providers.trial import SHARED, Seen, Step, Trial, judge
from tests.providers.trials import GOOD, LINKS, make_trial

HEADERS = {"fal": {"x-fal-billable-units": "4"}}


def verdicts(adapter: str, trial: Trial) -> dict[str, Seen]:
    return {fact.says: seen for fact, seen in judge(facts_of(adapter), trial)}


@pytest.mark.parametrize("adapter", builtin())
def test_good_order_breaks_nothing_and_confirms_all_that_it_can(adapter: str) -> None:
    seen = verdicts(adapter, make_trial(adapter, headers=HEADERS.get(adapter)))
    assert [says for says, one in seen.items() if one.verdict == "broken"] == []
    unseen = [one for one in seen.values() if one.verdict == "not seen"]
    assert all(one.detail for one in unseen), "what one order cannot show says why"
    assert len(seen) - len(unseen) >= 14


@pytest.mark.parametrize("adapter", builtin())
def test_order_that_showed_nothing_claims_nothing(adapter: str) -> None:
    seen = verdicts(adapter, make_trial(clip=None, links=()))
    assert {one.verdict for one in seen.values()} == {"not seen"}


@pytest.mark.parametrize("adapter", builtin())
def test_every_seller_has_facts_of_its_own_and_says_each_once(adapter: str) -> None:
    says = [fact.says for fact in facts_of(adapter)]
    assert len(set(says)) == len(says) > len(SHARED)


def test_installed_adapter_is_judged_by_what_all_share() -> None:
    assert facts_of("somebody-elses") == SHARED


BROKEN: list[tuple[str, str, dict[Step, list[Any]]]] = [
    ("runflow", "a create answers 201", {"create": [(200, {"id": "run-1"})]}),
    ("runflow", "names the run in `id`", {"create": [(201, {"run_id": "run-1"})]}),
    ("runflow", "in `status_code`", {"poll": [(200, {"status": "running"})]}),
    ("runflow", "a good run is", {"poll": [(200, {"status_code": "resting"})]}),
    ("runflow", "shows the tag", {"poll": [(200, {"status_code": "running"})]}),
    ("runflow", "found by its tag", {"find": [(200, {"items": []})]}),
    ("runflow", "found by its tag", {"find": [(200, {"items": [{"client_ref": "ref-1"}, {"client_ref": "x"}]})]}),
    ("runflow", "found by its tag", {"find": [(200, {"data": []})]}),
    ("runflow", "an unknown run answers 404", {"stranger": [(200, {})]}),
    ("runflow", "an unknown run answers 404", {"stranger": [(404, b"<html>")]}),
    ("runflow", "`cost` is text", {"file": [(200, {"cost": 0.45})]}),
    ("runflow", "`cost` is the price", {"file": [(200, {"cost": "0.900000"})]}),
    ("runflow", "first of `outputs`", {"file": [(200, {"output": {"outputs": [{"type": "image"}]}})]}),
    ("runflow", "the seed comes back", {"file": [(200, {"output": {"seed": None}})]}),
    ("runflow-legacy", "an order answers 200", {"create": [(201, {"video": {"url": "x"}})]}),
    ("runflow-legacy", "in `video.url`", {"create": [(200, {"output": {"outputs": [{"url": "x"}]}})]}),
    ("runflow-legacy", "names no run", {"create": [(200, {"video": {"url": "x"}, "run_id": "run-1"})]}),
    ("runflow-legacy", "names no charge", {"create": [(200, {"video": {"url": "x"}, "cost": "0.562500"})]}),
    ("runflow-legacy", "the seed comes back as a number", {"create": [(200, {"seed": "7"})]}),
    ("fal", "a create answers 200", {"create": [(202, {"request_id": "req-1"})]}),
    ("fal", "names the request", {"create": [(200, {"id": "req-1"})]}),
    ("fal", "under two segments", {"poll": [(405, {"detail": "Method Not Allowed"})]}),
    ("fal", "a poll answers 202 until", {"poll": [(200, {"status": "IN_PROGRESS"})]}),
    ("fal", "a good request is", {"poll": [(202, {"status": "PAUSED"})]}),
    ("fal", "too early", {"early": [(202, {"detail": "Request is still in progress"})]}),
    ("fal", "too early", {"early": [(400, {"detail": []})]}),
    ("fal", "answers 404", {"stranger": [(422, {"detail": "no uuid"})]}),
    ("fal", "in `video.url`", {"file": [(200, {"videos": []})]}),
    ("fal", "the seed comes back", {"file": [(200, {"seed": 8})]}),
    ("fal", "`x-fal-billable-units`", {}),
    ("shortapi", "a create answers 200", {"create": [(201, {"code": 0})]}),
    ("shortapi", "`code` 0", {"create": [(200, {"code": "0"})]}),
    ("shortapi", "in `data.job_id`", {"create": [(200, {"code": 0, "job_id": "job-1"})]}),
    ("shortapi", "`data.amount` is text", {"create": [(200, {"code": 0, "data": {"amount": 0.45}})]}),
    ("shortapi", "is the price in USD", {"create": [(200, {"code": 0, "data": {"amount": "45"}})]}),
    ("shortapi", "a poll answers 200", {"poll": [(202, {"data": {"status": 1}})]}),
    ("shortapi", "a good job is 0, 1, 2", {"poll": [(200, {"data": {"status": "done"}})]}),
    ("shortapi", "tells its `id`", {"poll": [(200, {"data": {"status": 1}})]}),
    ("shortapi", "`result.videos`", {"file": [(200, {"data": {"result": {"videos": []}}})]}),
    ("shortapi", "an unknown job", {"stranger": [(404, {"code": 1})]}),
    ("shortapi", "an unknown job", {"stranger": [(200, {"code": 0})]}),
    ("evolink", "a create answers 200", {"create": [(201, {"id": "task-unified-1"})]}),
    ("evolink", "begins with task-unified-", {"create": [(200, {"id": "task-1"})]}),
    ("evolink", "names the credits", {"create": [(200, {"id": "task-unified-1"})]}),
    ("evolink", "a credit is about", {"create": [(200, {"usage": {"credits_reserved": 61.2}})]}),
    ("evolink", "a good task is", {"poll": [(200, {"status": "waiting", "progress": 1})]}),
    ("evolink", "never back", {"poll": [(200, {"progress": 50}), (200, {"progress": 40})]}),
    ("evolink", "never back", {"poll": [(200, {"progress": "50 %"})]}),
    ("evolink", "at the end alone", {"poll": [(200, {"status": "processing", "progress": 100})]}),
    ("evolink", "at the end alone", {"file": [(200, {"progress": 99})]}),
    ("evolink", "links as text", {"file": [(200, {"results": [{"url": "x"}]})]}),
    ("evolink", "names no charge", {"file": [(200, {"usage": {"credits_used": 30.6}})]}),
    ("evolink", "answers 404", {"stranger": [(400, {"error": {}})]}),
]


@pytest.mark.parametrize(
    ("adapter", "says", "said"), BROKEN, ids=[f"{one[0]}-{no}-{one[1]}" for no, one in enumerate(BROKEN)]
)
def test_reply_that_differs_breaks_the_fact(adapter: str, says: str, said: dict[Step, list[Any]]) -> None:
    good = verdicts(adapter, make_trial(adapter, headers=HEADERS.get(adapter)))
    found = [(fact, one) for fact, one in verdicts(adapter, make_trial(adapter, said)).items() if says in fact]
    assert len(found) == 1, [fact for fact, _ in found]
    assert found[0][1].verdict == "broken"
    assert found[0][1].detail
    assert good[found[0][0]].verdict == "confirmed"


@pytest.mark.parametrize("adapter", builtin())
def test_order_that_was_not_taken_breaks_what_it_tried(adapter: str) -> None:
    seen = verdicts(adapter, make_trial(adapter, {"create": [(422, {})]}))
    tried = [one.verdict for says, one in seen.items() if says.startswith(("a length goes", "the resolution goes"))]
    assert set(tried) <= {"broken"}


def test_links_that_do_not_change_are_not_signed_afresh() -> None:
    says = "each reading of the run signs a fresh link"
    assert verdicts("runflow", make_trial("runflow", links=LINKS[:1] * 2))[says].verdict == "broken"
    assert verdicts("runflow", make_trial("runflow", links=LINKS[:1]))[says].verdict == "not seen"


def test_result_that_was_there_at_once_says_nothing_of_asking_too_early() -> None:
    trial = make_trial("fal", {"early": [(200, {"video": {"url": "x"}})]})
    seen = verdicts("fal", trial)["a result asked for too early is a 400, still in progress"]
    assert (seen.verdict, seen.detail) == ("not seen", "the film was there already")


def test_no_verdict_quotes_a_link() -> None:
    for adapter in GOOD:
        seen = verdicts(adapter, make_trial(adapter, headers=HEADERS.get(adapter)))
        assert not [one for one in seen.values() if "https://" in one.detail]
