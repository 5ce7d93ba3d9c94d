"""Factories for policy tests: good defaults, and one keyword for what a test is about."""

from typing import Any

from proxy.catalog import read_catalog
from proxy.core.offer import Candidate, Offer, Price
from proxy.core.tenant import Tenant
from proxy.core.video import Ask, Spec
from proxy.policy.marked import Item, Source, compose
from proxy.policy.plan import Decision, decide
from proxy.policy.rules import Rules, load_rules

AT_US = 1_795_219_512_000_000
"""2026-11-21, 00:05:12 UTC."""
ENV = {
    "EVOLINK_API_KEY": "sk-evolink",
    "SHORTAPI_KEY": "ak-shortapi",
    "FAL_KEY": "id:fal",
    "RUNFLOW_API_KEY": "rf_live_runflow",
}
ADAPTERS = {
    "evolink": "https://api.evolink.ai",
    "shortapi": "https://api.shortapi.ai",
    "fal": "https://queue.fal.run",
    "runflow": "https://api.runflow.io/",
    "runflow-legacy": "https://api.runflow.io",
}
PROVIDERS = """
providers:
  evolink:  {adapter: evolink,  api_key: "${EVOLINK_API_KEY}"}
  shortapi: {adapter: shortapi, api_key: "${SHORTAPI_KEY}"}
  fal:      {adapter: fal,      api_key: "${FAL_KEY}"}
  runflow:  {adapter: runflow,  api_key: "${RUNFLOW_API_KEY}"}
"""
DEFAULT_RULE = "rules: [{name: default, strategy: cheapest}]\n"


def load(text: str, *, env: dict[str, str] | None = None, adapters: dict[str, str] | None = None) -> Rules:
    return load_rules(
        text.encode(),
        file="routing_rules.yaml",
        env=ENV if env is None else env,
        adapters=ADAPTERS if adapters is None else adapters,
        catalog=read_catalog(),
    )


def make_rules(
    rules: str = DEFAULT_RULE, *, providers: str = PROVIDERS, more: str = "", env: dict[str, str] | None = None
) -> Rules:
    return load(f"version: 1\n{providers}\n{more}\n{rules}", env=env)


def rule(body: str) -> Rules:
    """Rules whose one rule says `body` beside its name."""
    return make_rules(f"rules: [{{name: only, {body}}}]")


def make_tenant(**fields: Any) -> Tenant:
    defaults: dict[str, Any] = {"id": "acme", "name": "Acme", "created_at": AT_US}
    return Tenant(**defaults | fields)


def make_ask(**fields: Any) -> Ask:
    defaults: dict[str, Any] = {"prompt": "a paper boat in rain"}
    return Ask(**defaults | fields)


def make_spec(**fields: Any) -> Spec:
    defaults: dict[str, Any] = {
        "model": "seedance-2.0",
        "operation": "text-to-video",
        "prompt": "a paper boat in rain",
        "seconds": 5,
        "resolution": "720p",
        "aspect_ratio": "16:9",
        "generate_audio": True,
        "content_filter": True,
        "tier": "standard",
    }
    return Spec(**defaults | fields)


def make_price(usd: str, resolution: str = "720p", **fields: Any) -> Price:
    starts = fields.get("starts", "2026-04-01")
    defaults = {"id": f"{resolution}@{starts}", "starts": starts, "source": "a page", "basis": "listed"}
    amount: dict[str, Any] = {fields.pop("unit", "usd_per_second"): usd}
    return Price(resolution=resolution, **amount, **defaults | fields)


def make_offer(**fields: Any) -> Offer:
    defaults: dict[str, Any] = {
        "id": "p/seedance-2.0/standard/text-to-video",
        "provider": "p",
        "adapter": "a",
        "model": "seedance-2.0",
        "operation": "text-to-video",
        "tier": "standard",
        "seller_model": "seller/seedance",
        "resolutions": ("480p", "720p"),
        "aspect_ratios": ("16:9",),
        "min_seconds": 4,
        "max_seconds": 15,
        "auto_seconds": False,
        "audio": "switch",
        "seed": False,
        "filter_switch": False,
        "web_search": False,
        "prompt_max_chars": None,
        "cancel": False,
        "callbacks": "http",
        "link_lifetime_s": 3600,
        "expected_s": {"480p": (10.0, 2.0), "720p": (20.0, 4.0)},
        "submit_timeout_s": 60.0,
        "prices": (make_price("0.10", "480p"), make_price("0.20", "720p")),
    }
    return Offer(**defaults | fields)


def make_candidate(**fields: Any) -> Candidate:
    defaults: dict[str, Any] = {
        "offer": "p/seedance-2.0/standard/text-to-video",
        "provider": "p",
        "seller_model": "seller/seedance",
        "tier": "standard",
        "price_id": "720p@2026-04-01",
        "basis": "listed",
        "rates": {"480p": "0.10", "720p": "0.20"},
        "fixed_usd": "0",
        "seller_microusd": 1_000_000,
        "quote_microusd": 1_000_000,
        "hold_microusd": 1_000_000,
        "expected_s": 40.0,
        "link_lifetime_s": 3600,
        "submit_timeout_s": 60.0,
        "reason": "number 1 by price",
    }
    return Candidate(**defaults | fields)


def decided(rules: Rules, *, tenant: Tenant | None = None, **fields: Any) -> Decision:
    """What is decided, with reasons, for an Ask with these fields."""
    options: dict[str, Any] = {"at_us": AT_US, "explain": True}
    options |= {key: fields.pop(key) for key in ("at_us", "budget", "chance", "explain", "times") if key in fields}
    return decide(make_ask(**fields), tenant or make_tenant(), rules, **options)


def providers_of(decision: Decision) -> list[str]:
    return [candidate.provider for candidate in decision.plan.candidates]


def parse(text: str, *, env: dict[str, str] | None = None) -> Item:
    """A piece of YAML as the reader sees it."""
    return compose(text.encode(), Source(file="some.yaml", env=env or {}), "the file")
