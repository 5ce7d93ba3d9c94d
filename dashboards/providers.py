"""The page that answers: how do sellers do, and which of them is worth its price?"""

from dashboards.panels import (
    ATTEMPTS,
    JOB,
    OFFER,
    PROVIDER,
    SELLER_COST,
    Page,
    Panel,
    Row,
    latest,
    quantile,
    quantiles,
    rate,
    share,
)

SELLER_TIME = "reelay_provider_request_duration_seconds"
FILM_SECONDS = "reelay_delivered_film_seconds_total"
EXPECTED = "reelay_expected_cost_usd_total"

SUBMITS = f'{PROVIDER},operation="submit"'
FAILED = f'{PROVIDER},outcome!="ok"'
DELIVERED = f'{PROVIDER},outcome="delivered"'
UNDELIVERED = f'{PROVIDER},outcome!="delivered"'
MOVED = f'{JOB},from_provider=~"$provider"'

SPEED = (
    Panel(
        "Time to film",
        "Time from the start of a submit until its seller had made the film, by provider.",
        "s",
        quantiles("reelay_provider_film_duration_seconds", PROVIDER, "provider"),
    ),
    Panel(
        "Learned times",
        "What a decision expects of a film by the rules' defaults, where enough was learned of late.",
        "s",
        ((latest("reelay_offer_learned_seconds", OFFER, "offer"), "{{offer}}"),),
    ),
    Panel(
        "Stated times",
        "The same by catalogue and rules, which holds while too little was learned.",
        "s",
        ((latest("reelay_offer_stated_seconds", OFFER, "offer"), "{{offer}}"),),
    ),
    Panel(
        "Seller latency",
        "Time of an exchange with each provider, over all operations.",
        "s",
        quantiles(SELLER_TIME, PROVIDER, "provider"),
        width=12,
    ),
    Panel(
        "Seller latency by operation, p95",
        "Time that 95 in 100 exchanges stay under, by provider and operation; more than 10 s reads as 10 s.",
        "s",
        ((quantile(0.95, SELLER_TIME, PROVIDER, "provider, operation"), "{{provider}} {{operation}}"),),
        width=12,
    ),
)

FAILURES = (
    Panel(
        "Submits by outcome",
        "Orders sent to sellers per minute, by provider and what came of each.",
        "cpm",
        ((f"{rate(ATTEMPTS, SUBMITS, 'provider, outcome', per_s=60)} > 0", "{{provider}} {{outcome}}"),),
        stacked=True,
    ),
    Panel(
        "Exchanges by operation",
        "Exchanges with sellers per second, by provider and what was asked.",
        "reqps",
        ((rate(ATTEMPTS, PROVIDER, "provider, operation"), "{{provider}} {{operation}}"),),
        stacked=True,
    ),
    Panel(
        "Exchanges that went wrong",
        "Share of the exchanges with each provider, of whatever operation, that did not end well.",
        "percentunit",
        ((share(rate(ATTEMPTS, FAILED, "provider"), rate(ATTEMPTS, PROVIDER, "provider")), "{{provider}}"),),
    ),
    Panel(
        "Failures by class",
        "Exchanges per minute that did not end well, over all operations, by provider and class of failure.",
        "cpm",
        ((f"{rate(ATTEMPTS, FAILED, 'provider, outcome', per_s=60)} > 0", "{{provider}} {{outcome}}"),),
        stacked=True,
    ),
    Panel(
        "Breakers",
        "Offers that are passed over just now because they failed: 2 open, 1 half-open, 0 asked as usual.",
        "short",
        ((latest("reelay_breaker_state", OFFER, "offer"), "{{offer}}"),),
    ),
    Panel(
        "Retries put off",
        "Calls per minute that were to be made again but had to wait: so many fail that more would be a storm.",
        "cpm",
        (
            (
                rate("reelay_retries_put_off_total", PROVIDER, "provider, operation", per_s=60),
                "{{provider}} {{operation}}",
            ),
        ),
    ),
)

CHOICE = (
    Panel(
        "Decisions",
        "Videos accepted per minute, by the rule that matched and the provider that is tried first.",
        "cpm",
        (
            (
                f"{rate('reelay_route_decisions_total', PROVIDER, 'rule, provider', per_s=60)} > 0",
                "{{rule}}: {{provider}}",
            ),
        ),
        stacked=True,
    ),
    Panel(
        "Fallbacks",
        "Videos that moved on to another provider, per minute, by where from and where to.",
        "cpm",
        (
            (
                f"{rate('reelay_fallbacks_total', MOVED, 'from_provider, to_provider', per_s=60)} > 0",
                "{{from_provider}} → {{to_provider}}",
            ),
        ),
    ),
    Panel(
        "Fallbacks by reason",
        "Videos that moved on to another provider, per minute, by why the one before did not deliver.",
        "cpm",
        ((rate("reelay_fallbacks_total", MOVED, "reason", per_s=60), "{{reason}}"),),
        stacked=True,
    ),
)

WORTH = (
    Panel(
        "Taken per second of film",
        "US dollars that each provider took for a second of film that was delivered.",
        "currencyUSD",
        (
            (
                share(rate(SELLER_COST, DELIVERED, "provider"), rate(FILM_SECONDS, PROVIDER, "provider")),
                "{{provider}}",
            ),
        ),
    ),
    Panel(
        "Price per second of film",
        "What its prices at accept make of a second of the same films, in US dollars, by provider.",
        "currencyUSD",
        ((share(rate(EXPECTED, PROVIDER, "provider"), rate(FILM_SECONDS, PROVIDER, "provider")), "{{provider}}"),),
    ),
    Panel(
        "Taken against price",
        "What each provider took for delivered films as a share of what its prices make: 100 % is right.",
        "percentunit",
        (
            (
                f"{rate(SELLER_COST, DELIVERED, 'provider')} / ({rate(EXPECTED, PROVIDER, 'provider')} > 0)",
                "{{provider}}",
            ),
        ),
    ),
    Panel(
        "Costs that differ",
        "Deliveries per hour whose seller says it took another amount than its price makes, by provider.",
        "short",
        ((rate("reelay_cost_differences_total", PROVIDER, "provider", per_s=3600), "{{provider}}"),),
        stacked=True,
    ),
    Panel(
        "Paid for nothing",
        "US dollars per hour that each provider took for films that were not delivered, by what became of them.",
        "currencyUSD",
        (
            (
                f"{rate(SELLER_COST, UNDELIVERED, 'provider, outcome', per_s=3600)} > 0",
                "{{provider}} {{outcome}}",
            ),
        ),
        stacked=True,
    ),
    Panel(
        "Film delivered",
        "Seconds of film delivered and billed per minute, by provider.",
        "s",
        ((rate(FILM_SECONDS, PROVIDER, "provider", per_s=60), "{{provider}}"),),
        stacked=True,
    ),
)

DOUBT = (
    Panel(
        "Unknown attempts",
        "Attempts of which nobody can tell yet whether they bought; each waits for its deadline or an operator.",
        "short",
        ((latest("reelay_unknown_attempts", PROVIDER, "provider"), "{{provider}}"),),
    ),
    Panel(
        "Possible double purchases",
        "Submits per minute sent elsewhere although this provider may have bought already.",
        "cpm",
        ((rate("reelay_possible_double_total", PROVIDER, "provider", per_s=60), "{{provider}}"),),
    ),
    Panel(
        "Callbacks",
        "Sellers' callbacks per minute; `healed` named the order of an attempt whose outcome was unknown.",
        "cpm",
        ((rate("reelay_callbacks_total", PROVIDER, "provider, outcome", per_s=60), "{{provider}} {{outcome}}"),),
    ),
)

PAGE = Page(
    "providers",
    "How fast sellers are, how they fail, what is learned of them, and what they take for what they deliver.",
    ("job", "provider"),
    (
        Row("Speed", SPEED),
        Row("Failures", FAILURES),
        Row("Choice", CHOICE),
        Row("Price against delivered", WORTH),
        Row("Doubt", DOUBT),
    ),
)
