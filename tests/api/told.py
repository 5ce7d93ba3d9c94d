"""A statement with a line of each kind."""

from typing import Any

from proxy.services.charges import read_month
from proxy.services.statements import EndUserLine, RefundLine, SkuLine, Statement

NOVEMBER = read_month("2026-11")
NAMES = {"eu_1": "ann <b>&", "eu_2": None, "eu_3": "=HYPERLINK(1)"}


def make_statement(**fields: Any) -> Statement:
    sku = {"tier": "standard", "operation": "text-to-video", "resolution": "720p"}
    lines = (
        SkuLine(
            model="seedance-2.0",
            outcome="delivered",
            unit_usd="0.1985",
            videos=1234,
            seconds=6170,
            microusd=1_224_745_000,
            cents=122_475,
            **sku,
        ),
        SkuLine(
            model="seedance-2.0", outcome="billed", unit_usd=None, videos=1, seconds=0, microusd=5_000, cents=1, **sku
        ),
    )
    refunds = (
        RefundLine(
            id="video_9/1/refund-1",
            at=NOVEMBER.start + 1,
            charge="video_9/1/post",
            charged_at=NOVEMBER.start - 1,
            corrects="2026-10-0007",
            reason="flickers <i>",
            microusd=-1_004_999,
            cents=-100,
        ),
    )
    users = (
        EndUserLine(end_user="", videos=1, charged_microusd=745_000, refunded_microusd=0),
        EndUserLine(end_user="eu_1", videos=1233, charged_microusd=1_224_005_000, refunded_microusd=1_004_999),
        EndUserLine(end_user="eu_2", videos=1, charged_microusd=0, refunded_microusd=0),
        EndUserLine(end_user="eu_3", videos=0, charged_microusd=0, refunded_microusd=0),
    )
    defaults: dict[str, Any] = {
        "number": "2026-11-0001",
        "tenant_id": "tenant_1",
        "tenant_name": "Films & <Co>",
        "month": "2026-11",
        "start": NOVEMBER.start,
        "end": NOVEMBER.end,
        "made_at": NOVEMBER.end + 10**9,
        "software": "Reelay 1",
        "books": ("abcdef0123456789",),
        "lines": lines,
        "refunds": refunds,
        "end_users": users,
        "total_microusd": 1_223_745_001,
        "total_cents": 122_375,
        "rounding_cents": -1,
        "held_microusd": 794_000,
        "charges": 1236,
        "charges_sha256": "5e" * 32,
    }
    return Statement(**defaults | fields)
