"""
What is assumed of each seller, in one list for each adapter's name.

Stated by no page of the seller, or by two that differ; the adapters and the catalogue rely on it. What
one good order cannot show stands here too, so that nobody takes it for known.
"""

from collections.abc import Callable

from proxy.providers.trial import (
    SHARED,
    Fact,
    Seen,
    Trial,
    answers,
    body,
    dig,
    holds,
    listed,
    not_seen,
    reads,
    settled,
    shown,
    states_price,
    unshown,
    words,
)

_ONE_GOOD_ORDER = "one good order cannot show it"
_NEEDS_FAILURE = unshown("needs an order that is refused")


def _unknown_ids_are_404(trial: Trial) -> Seen:
    replies = trial.replies("stranger")
    if not replies:
        return not_seen()
    readable = isinstance(body(replies[-1]), dict)
    return settled(replies[-1].status == 404 and readable, f"{replies[-1].status}{'' if readable else ', unreadable'}")


def _taken(trial: Trial) -> Seen:
    """For what the order itself tried: its create says whether that is taken."""
    replies = trial.replies("create")
    return settled(replies[0].status < 300, str(replies[0].status)) if replies else not_seen()


# Runflow


def _found_by_tag(trial: Trial) -> Seen:
    bodies = trial.bodies("find")
    if not bodies:
        return not_seen()
    runs = dig(bodies[-1], "items")
    tags = [dig(run, "client_ref") for run in runs] if isinstance(runs, list) else None
    if tags is None:
        return settled(holds=False, detail="no list under `items`")
    return settled(tags == [trial.order.client_ref], f"{len(tags)} found")


def _fresh_links(trial: Trial) -> Seen:
    if len(trial.links) < 2:
        return not_seen()
    return settled(len(set(trial.links)) > 1, f"{len(set(trial.links))} different of {len(trial.links)}")


_RUNFLOW = listed(
    {
        "a create answers 201": answers("create", 201),
        "a create names the run in `id`": holds("create", ("id",), str),
        "a length goes as text": _taken,
        "a seed goes as a number": _taken,
        "the state stands in `status_code`": holds("poll", ("status_code",), str),
        "a good run is queued, dispatching, running, succeeded": words(
            ("status_code",), ("queued", "dispatching", "running", "succeeded")
        ),
        "a run shows the tag it was ordered with": reads("poll", ("client_ref",), lambda t: t.order.client_ref),
        "a run is found by its tag, and it alone": _found_by_tag,
        "an unknown run answers 404": _unknown_ids_are_404,
        "`cost` is text": holds("file", ("cost",), str),
        "`cost` is the price": states_price("file", ("cost",)),
        "the film is the first of `outputs`, of type video": reads(
            "file", ("output", "outputs", 0, "type"), lambda _: "video"
        ),
        "the seed comes back": reads("file", ("output", "seed"), lambda t: t.order.seed),
        "each reading of the run signs a fresh link": _fresh_links,
        "a refused prompt speaks of a content policy or of sensitive content": _NEEDS_FAILURE,
        "1080p is made of text": unshown("needs an order of 1080p"),
        "429 comes without Retry-After": unshown(_ONE_GOOD_ORDER),
    }
)


# Runflow, the older interface


def _unnamed(*fields: str) -> Callable[[Trial], Seen]:
    """The answer to the order has none of these fields."""

    def check(trial: Trial) -> Seen:
        bodies = trial.bodies("create")
        if not bodies:
            return not_seen()
        named = [field for field in fields if dig(bodies[-1], field) is not None]
        return settled(not named, ", ".join(f"`{field}`" for field in named) or "none")

    return check


_RUNFLOW_LEGACY = listed(
    {
        "an order answers 200": answers("create", 200),
        "the answer names the film in `video.url`": holds("create", ("video", "url"), str),
        "the answer names no run to ask about": _unnamed("id", "run_id", "request_id"),
        "the answer names no charge": _unnamed("cost"),
        "the seed comes back as a number": reads("create", ("seed",), lambda t: t.order.seed),
        "a length goes as text": _taken,
        "a seed goes as text": _taken,
        "an order needs no `end_user_id`": _taken,
        "it costs what the newer runs cost": unshown("no reply names a price; see the dashboard"),
        "a connection is held for as long as a render takes": unshown("needs a slow render"),
        "errors look as those of the newer runs": _NEEDS_FAILURE,
        "a refused prompt speaks of a content policy or of sensitive content": _NEEDS_FAILURE,
        "503 with MODEL_UNAVAILABLE has bought nothing": _NEEDS_FAILURE,
        "a render that fails is not billed": _NEEDS_FAILURE,
    }
)


# fal


def _poll_statuses(trial: Trial) -> Seen:
    replies = trial.replies("poll")
    if not replies:
        return not_seen()
    pairs = list(dict.fromkeys((dig(body(reply), "status"), reply.status) for reply in replies))
    right = all(status == (200 if word == "COMPLETED" else 202) for word, status in pairs)
    return settled(right, ", ".join(f"{shown(word)} with {status}" for word, status in pairs))


def _early_result(trial: Trial) -> Seen:
    replies = trial.replies("early")
    if not replies:
        return not_seen()
    detail = dig(body(replies[-1]), "detail")
    if replies[-1].status == 200 and isinstance(dig(body(replies[-1]), "video"), dict):
        return not_seen("the film was there already")
    told = isinstance(detail, str) and "still in progress" in detail.lower()
    return settled(replies[-1].status == 400 and told, f"{replies[-1].status}, {shown(detail)}")


def _billable_units(trial: Trial) -> Seen:
    replies = trial.replies("file")
    if not replies:
        return not_seen()
    units = replies[-1].headers.get("x-fal-billable-units")
    return settled(units == str(trial.order.seconds), "no header" if units is None else shown(units))


_FAL = listed(
    {
        "a create answers 200": answers("create", 200),
        "a create names the request in `request_id`": holds("create", ("request_id",), str),
        "a length goes as text": _taken,
        "an order needs no `end_user_id`": _taken,
        "a request is asked for under two segments of the model": holds("poll", ("status",), str),
        "a poll answers 202 until the end, then 200": _poll_statuses,
        "a good request is IN_QUEUE, IN_PROGRESS, COMPLETED": words(
            ("status",), ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
        ),
        "a result asked for too early is a 400, still in progress": _early_result,
        "an unknown request answers 404": _unknown_ids_are_404,
        "the result names the film in `video.url`": holds("file", ("video", "url"), str),
        "the seed comes back": reads("file", ("seed",), lambda t: t.order.seed),
        "`x-fal-billable-units` counts the seconds": _billable_units,
        "the price of 480p follows from tokens": unshown("no reply names a price; see the dashboard"),
        "bad input is told at the result": _NEEDS_FAILURE,
        "a refused prompt costs nothing": _NEEDS_FAILURE,
        "a cancelled request ends as `client_cancelled`": unshown("needs an order that is cancelled"),
        "no limit on a prompt's length": unshown("needs a long prompt"),
        "429 comes without Retry-After": unshown(_ONE_GOOD_ORDER),
    }
)


# ShortAPI


def _unknown_job(trial: Trial) -> Seen:
    replies = trial.replies("stranger")
    if not replies:
        return not_seen()
    code = dig(body(replies[-1]), "code")
    return settled(
        replies[-1].status == 200 and code not in {0, "0", None}, f"{replies[-1].status}, code {shown(code)}"
    )


_SHORTAPI = listed(
    {
        "a create answers 200": answers("create", 200),
        "a create says `code` 0": reads("create", ("code",), lambda _: 0),
        "a create names the job in `data.job_id`": holds("create", ("data", "job_id"), str),
        "`data.amount` is text": holds("create", ("data", "amount"), str),
        "`data.amount` is the price in USD": states_price("create", ("data", "amount")),
        "a poll answers 200": answers("poll", 200),
        "a good job is 0, 1, 2": words(("data", "status"), (0, 1, 2)),
        "the job tells its `id`": holds("poll", ("data", "id"), str),
        "the film is the first of `result.videos`": holds("file", ("data", "result", "videos", 0, "url"), str),
        "an unknown job is a 200 with another `code`": _unknown_job,
        "3 is a failure, 4 a cancelled or expired job": _NEEDS_FAILURE,
        "a failed job says `refunded`": _NEEDS_FAILURE,
        "a bad key, no credit and too many requests are told by text": _NEEDS_FAILURE,
        "a callback repeats the answer to a query": unshown("no callback was asked for"),
        "no limit on a prompt's length": unshown("needs a long prompt"),
    }
)


# EvoLink

USD_PER_CREDIT = "0.0147"
"""Computed from the pairs that the price page prints."""


def _task_id(trial: Trial) -> Seen:
    bodies = trial.bodies("create")
    if not bodies:
        return not_seen()
    task_id = str(dig(bodies[-1], "id"))
    return settled(task_id.startswith("task-unified-"), task_id[:13])


def _progress(trial: Trial) -> Seen:
    told = [dig(one, "progress") for one in trial.bodies("poll")]
    if not told:
        return not_seen()
    numbers = [one for one in told if isinstance(one, int | float) and 0 <= one <= 100]
    return settled(len(numbers) == len(told) and numbers == sorted(numbers), ", ".join(map(shown, told[:12])))


def _hundred_at_the_end(trial: Trial) -> Seen:
    early = [dig(one, "progress") for one in trial.bodies("poll") if dig(one, "status") not in {"completed", "failed"}]
    if not trial.replies("file"):
        return not_seen()
    last = dig(trial.bodies("file")[-1], "progress")
    return settled(last == 100 and 100 not in early, f"{shown(last)} at the end")


def _no_charge_named(trial: Trial) -> Seen:
    if not trial.replies("file"):
        return not_seen()
    usage = dig(trial.bodies("file")[0], "usage")
    return settled(usage is None, "no `usage`" if usage is None else shown(usage))


_EVOLINK = listed(
    {
        "a create answers 200": answers("create", 200),
        "a task's id begins with task-unified-": _task_id,
        "a length goes as a number": _taken,
        "the resolution goes as `quality`": _taken,
        "a create names the credits set aside": holds("create", ("usage", "credits_reserved"), (int, float)),
        f"a credit is about {USD_PER_CREDIT} USD, so that these are the price": states_price(
            "create", ("usage", "credits_reserved"), usd_per_unit=USD_PER_CREDIT, within="0.02"
        ),
        "a good task is pending, processing, completed": words(("status",), ("pending", "processing", "completed")),
        "`progress` goes from 0 to 100 and never back": _progress,
        "`progress` is 100 at the end alone": _hundred_at_the_end,
        "`results` lists links as text": holds("file", ("results", 0), str),
        "the finished task names no charge": _no_charge_named,
        "an unknown task answers 404": _unknown_ids_are_404,
        "1080p costs 0.495 USD a second at the most": unshown("needs an order of 1080p"),
        "there is no way to cancel, and `cancelled` is a state": unshown("needs an order that is cancelled"),
        "unknown fields are refused": _NEEDS_FAILURE,
        "a long prompt is not cut": unshown("needs a long prompt"),
        "429 comes without Retry-After": unshown(_ONE_GOOD_ORDER),
    }
)

_OWN: dict[str, tuple[Fact, ...]] = {
    "runflow": _RUNFLOW,
    "runflow-legacy": _RUNFLOW_LEGACY,
    "fal": _FAL,
    "shortapi": _SHORTAPI,
    "evolink": _EVOLINK,
}


def facts_of(adapter: str) -> tuple[Fact, ...]:
    """The seller's own, then those that all share; the latter alone for an adapter of somebody else's."""
    return (*_OWN.get(adapter, ()), *SHARED)
