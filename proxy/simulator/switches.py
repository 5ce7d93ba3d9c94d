"""Where the sellers' pages leave two readings open: one of them by default, the other by a switch."""

import msgspec


class Switches(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All may be changed while the sandbox runs."""

    runflow_takes_numbers: bool = False
    """A `duration` of 5 passes for "5", in both of Runflow's APIs."""
    runflow_legacy_link_only: bool = False
    """The answer holds the link, which alone is certain, and nothing beside it."""
    fal_takes_numbers: bool = False
    fal_running_at_once: int = 40
    """For each key; the rest waits in the queue."""
    fal_cancel_completes: bool | None = None
    """Whether a running job finishes in spite of a cancel; None: a coin."""
    shortapi_http_errors: bool = False
    """Bad key, no credit and bad input come as 401, 402 and 400 instead of 200."""
    shortapi_id_on_top: bool = False
    """The create answers `job_id` beside `data` instead of within."""
    shortapi_refuses_unknown: bool = False
    """Unknown `args` are refused instead of ignored."""
    shortapi_in_flight: int | None = None
    """A further create is answered 429; None: all wait."""
    evolink_ignores_unknown: bool = False
    """Unknown fields pass instead of being refused."""
    evolink_in_flight: int | None = None
