"""
The page that answers: who pays what to whom, and what is lost on the way?

What end users cost is asked of the database itself, for whoever can invent names must not fill labels.
Its SQL adds up the same rows as `/v1/spend`, over the time range of the page.
"""

from dashboards.panels import (
    CHARGED,
    JOB,
    MODEL,
    PROVIDER,
    SELLER_COST,
    SPENT,
    TENANT,
    Page,
    Panel,
    Row,
    Table,
    latest,
    rate,
)

IN_TIME = """settlements.at >= $__unixEpochFrom()::bigint * 1000000
  AND settlements.at < $__unixEpochTo()::bigint * 1000000
  AND settlements.tenant_id ~ '^${tenant:regex}$'"""

BY_END_USER = f"""
SELECT
  settlements.tenant_id AS "Tenant",
  CASE WHEN settlements.end_user <> ''
    THEN coalesce(max(end_users.name), 'erased-' || settlements.end_user) END AS "End user",
  count(*) FILTER (WHERE settlements.kind = 'post') AS "Videos",
  sum(settlements.seconds) AS "Seconds",
  sum(settlements.charged_microusd) / 1000000.0 AS "Charged",
  sum(settlements.refunded_microusd) / 1000000.0 AS "Refunded",
  sum(settlements.seller_microusd) / 1000000.0 AS "Taken by sellers",
  sum(settlements.absorbed_microusd) / 1000000.0 AS "Absorbed"
FROM settlements
LEFT JOIN end_users
  ON end_users.tenant_id = settlements.tenant_id AND end_users.surrogate = settlements.end_user
WHERE {IN_TIME}
GROUP BY settlements.tenant_id, settlements.end_user
ORDER BY sum(settlements.charged_microusd) DESC, 1, 2
LIMIT 1000
""".strip()  # noqa: S608  # all of it stands here

BY_RULE = f"""
SELECT
  settlements.tenant_id AS "Tenant",
  settlements.rule AS "Rule",
  settlements.provider AS "Provider",
  count(*) FILTER (WHERE settlements.kind = 'post') AS "Videos",
  sum(settlements.charged_microusd) / 1000000.0 AS "Charged",
  sum(settlements.at_first_microusd) / 1000000.0 AS "At the first offer",
  sum(settlements.at_dearest_microusd) / 1000000.0 AS "At the dearest",
  sum(settlements.at_dearest_microusd - settlements.charged_microusd) / 1000000.0 AS "Saved"
FROM settlements
WHERE {IN_TIME}
  AND settlements.outcome = 'delivered'
GROUP BY settlements.tenant_id, settlements.rule, settlements.provider
ORDER BY 1, 2, 3
LIMIT 1000
""".strip()  # noqa: S608  # all of it stands here

COUNTS = (("Videos", "short"), ("Seconds", "s"))

DELIVERED = rate("reelay_delivered_usd_total", MODEL, "model")
FIRST = rate("reelay_at_first_usd_total", MODEL, "model")
DEAREST = rate("reelay_at_dearest_usd_total", MODEL, "model")
USED = latest("reelay_budget_used_usd", TENANT, "tenant, reason")
LIMIT = latest("reelay_budget_limit_usd", TENANT, "tenant, reason")

CHARGES = (
    Panel(
        "Charged by tenant",
        "US dollars per hour charged to each tenant; all but the oldest tenants read `other`.",
        "currencyUSD",
        ((rate(CHARGED, SPENT, "tenant", per_s=3600), "{{tenant}}"),),
        stacked=True,
    ),
    Panel(
        "Charged by model",
        "US dollars per hour charged for each model.",
        "currencyUSD",
        ((rate(CHARGED, SPENT, "model", per_s=3600), "{{model}}"),),
        stacked=True,
    ),
    Panel(
        "Held",
        "US dollars held for videos whose cost is not known yet, by tenant.",
        "currencyUSD",
        ((latest("reelay_held_usd", TENANT, "tenant"), "{{tenant}}"),),
        stacked=True,
    ),
    Panel(
        "Seller cost",
        "US dollars per hour that each provider took, delivered or not.",
        "currencyUSD",
        ((rate(SELLER_COST, f'{PROVIDER},model=~"$model"', "provider", per_s=3600), "{{provider}}"),),
        stacked=True,
    ),
    Panel(
        "Absorbed",
        "US dollars per hour that sellers took and no tenant is charged for, by reason.",
        "currencyUSD",
        ((rate("reelay_absorbed_usd_total", JOB, "reason", per_s=3600), "{{reason}}"),),
        stacked=True,
    ),
    Panel(
        "Unknown exposure by provider",
        "US dollars that the attempts of unknown outcome would cost if all of them had bought.",
        "currencyUSD",
        ((latest("reelay_unknown_exposure_usd", PROVIDER, "provider"), "{{provider}}"),),
        stacked=True,
    ),
)

SAVINGS = (
    Panel(
        "Saved against the dearest",
        "US dollars per hour that delivered films cost tenants less than at the dearest offer able to make them.",
        "currencyUSD",
        ((f"({DEAREST} - {DELIVERED}) * 3600", "{{model}}"),),
        width=12,
        signed=True,
    ),
    Panel(
        "Cost of falling back",
        "US dollars per hour that delivered films cost tenants more than the first offer of their plan would have.",
        "currencyUSD",
        ((f"({DELIVERED} - {FIRST}) * 3600", "{{model}}"),),
        width=12,
        signed=True,
    ),
)

BUDGETS = (
    Panel(
        "Budgets used",
        "Share of each tenant's budgets that is held or charged in the present period; 60 of them, the fullest.",
        "percentunit",
        ((f"{USED} / {LIMIT}", "{{tenant}} {{reason}}"),),
        width=6,
    ),
    Panel(
        "Refused by a budget",
        "Requests per hour that a budget left too little for, by tenant and whose budget it is.",
        "short",
        ((rate("reelay_budget_rejections_total", TENANT, "tenant, reason", per_s=3600), "{{tenant}} {{reason}}"),),
        width=6,
        stacked=True,
    ),
    Panel(
        "Warnings of budgets",
        "Videos per hour with which a budget reached a share at which a warning is due.",
        "short",
        ((rate("reelay_budget_warnings_total", TENANT, "tenant, reason", per_s=3600), "{{tenant}} {{reason}}"),),
        width=6,
        stacked=True,
    ),
    Panel(
        "Beyond shadow budgets",
        "Videos per hour that a budget in shadow mode would have refused.",
        "short",
        (
            (
                rate("reelay_budget_shadow_rejections_total", TENANT, "tenant, reason", per_s=3600),
                "{{tenant}} {{reason}}",
            ),
        ),
        width=6,
        stacked=True,
    ),
)

BOOKS = (
    Panel(
        "Ledger drift",
        "US dollars by which the books differ in themselves: nothing but zero is right; `reelay audit` says where.",
        "currencyUSD",
        ((latest("reelay_ledger_drift_usd", JOB), "drift"),),
        width=12,
        signed=True,
    ),
    Panel(
        "Books last compared",
        "Seconds since postings, holds and reports were last compared.",
        "s",
        ((f"time() - {latest('reelay_ledger_last_check_timestamp_seconds', JOB)}", "ago"),),
        width=12,
    ),
)

FROM_THE_BOOKS = (
    Table(
        "Spend by end user",
        "From the database, to the micro-dollar, in the page's time: the same as `/v1/spend`. PostgreSQL only.",
        "currencyUSD",
        BY_END_USER,
        COUNTS,
    ),
    Table(
        "Savings by rule and provider",
        "Delivered films at other offers, by their prices at accept, as `reelay report savings`. PostgreSQL only.",
        "currencyUSD",
        BY_RULE,
        COUNTS,
    ),
)

PAGE = Page(
    "spend",
    "What tenants are charged, what sellers take, what is saved, absorbed and left of budgets.",
    ("job", "provider", "model", "tenant"),
    (
        Row("Charges and costs", CHARGES),
        Row("Savings", SAVINGS),
        Row("Budgets", BUDGETS),
        Row("Books", BOOKS),
        Row("From the database", FROM_THE_BOOKS),
    ),
)
