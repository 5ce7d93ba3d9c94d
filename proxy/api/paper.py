"""Statements as people read them: HTML that prints well."""

from collections.abc import Iterable
from html import escape

from proxy.api.statement_objects import Names, name_of
from proxy.core.clock import iso
from proxy.core.money import usd_text
from proxy.services.statements import SkuLine, Statement

_STYLE = """
@page { size: A4; margin: 18mm 16mm 20mm; @bottom-right { content: counter(page) " / " counter(pages);
  font: 8.5pt Arial, "Liberation Sans", sans-serif; } }
* { box-sizing: border-box; }
body { font: 10pt/1.4 "Helvetica Neue", Arial, "Liberation Sans", sans-serif; color: black; max-width: 180mm;
  margin: 0 auto; padding: 8mm 0; }
h1 { font-size: 20pt; margin: 0 0 1mm; } h2 { font-size: 12pt; margin: 9mm 0 2mm; break-after: avoid; }
.draft { display: inline-block; border: 1.5pt solid #b00; color: #b00; padding: 0 2mm; font-weight: bold; }
dl { display: grid; grid-template-columns: 38mm 1fr; gap: 0.6mm 4mm; margin: 4mm 0; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
thead { display: table-header-group; } tr { break-inside: avoid; }
th { text-align: left; font-weight: 600; border-bottom: 1pt solid black; padding: 1mm 2mm 1mm 0;
  vertical-align: bottom; }
td { border-bottom: 0.4pt solid #bbb; padding: 1mm 2mm 1mm 0; vertical-align: top; overflow-wrap: anywhere; }
.n { text-align: right; white-space: nowrap; } th.n { white-space: normal; }
tr.sum td { border-top: 1pt solid black; border-bottom: 2pt solid black; font-weight: bold; font-size: 11pt; }
.note { color: #555; font-size: 8.5pt; }
@media print { body { padding: 0; max-width: none; } }
"""


def as_html(statement: Statement, names: Names) -> str:
    """A page that needs nothing from elsewhere, laid out for A4."""
    title = f"Statement {statement.number}" if statement.number else f"Draft of a statement for {statement.month}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        "" if statement.number else '<p class="draft">Draft: the month is open, and this may change</p>',
        _head(statement),
        "<h2>Videos</h2>",
        _lines(statement),
        _refunds(statement),
        "<h2>By end user</h2>",
        _end_users(statement, names),
        "<h2>Notes</h2>",
        _notes(statement),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _head(statement: Statement) -> str:
    facts = {
        "Tenant": f"{statement.tenant_name} ({statement.tenant_id})",
        "Period": f"{iso(statement.start)} to {iso(statement.end)}, exclusive; UTC",
        "Currency": "US dollars",
        "Made": iso(statement.made_at),
        "To be paid": f"$ {_thousands(statement.total_cents)}",
    }
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{escape(value)}</dd>' for name, value in facts.items())}</dl>"


def _thousands(cents: int) -> str:
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100:,}.{abs(cents) % 100:02}"


class _Figure(str):
    """Stands at the right."""

    __slots__ = ()


def _exact(microusd: int) -> _Figure:
    sign = "-" if microusd < 0 else ""
    return _Figure(f"{sign}{abs(microusd) // 1_000_000:,}.{abs(microusd) % 1_000_000:06}")


def _rounded(cents: int) -> _Figure:
    return _Figure(_thousands(cents))


def _count(number: int) -> _Figure:
    return _Figure(f"{number:,}")


def _cell(tag: str, text: str) -> str:
    figure = ' class="n"' if isinstance(text, _Figure) else ""
    return f"<{tag}{figure}>{escape(text)}</{tag}>"


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    cells = "".join(_cell("th", name) for name in head)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(*cells: str, kind: str = "") -> str:
    told = "".join(_cell("td", cell) for cell in cells)
    return f'<tr class="{kind}">{told}</tr>' if kind else f"<tr>{told}</tr>"


_EXACT, _AMOUNT = _Figure("Exact $"), _Figure("Amount $")


def _lines(statement: Statement) -> str:
    head = ("Model and kind", _Figure("Videos"), _Figure("Seconds"), _Figure("$ a second"), _EXACT, _AMOUNT)
    rows = [
        _row(
            _what(line),
            _count(line.videos),
            _count(line.seconds),
            _Figure(line.unit_usd or "various"),
            _exact(line.microusd),
            _rounded(line.cents),
        )
        for line in statement.lines
    ]
    refunded = sum(line.microusd for line in statement.refunds)
    if statement.refunds:
        rounded = sum(line.cents for line in statement.refunds)
        rows.append(_row("Refunds, as below", "", "", "", _exact(refunded), _rounded(rounded)))
    rows.append(_row("Rounding", "", "", "", "", _rounded(statement.rounding_cents)))
    total = ("Total", "", "", "", _exact(statement.total_microusd), _rounded(statement.total_cents))
    return _table(head, [*rows, _row(*total, kind="sum")])


def _what(line: SkuLine) -> str:
    told = " · ".join(part for part in (line.model, line.tier, line.operation, line.resolution) if part)
    return (
        told
        if line.outcome == "delivered"
        else f"{told} · not delivered (cancelled, or a failed attempt that is billed)"
    )


def _refunds(statement: Statement) -> str:
    if not statement.refunds:
        return ""
    head = ("Given back", "Charge", "Stands on", "Reason", _EXACT, _AMOUNT)
    rows = [
        _row(
            iso(line.at)[:10],
            f"{line.charge.split('/')[0]} of {iso(line.charged_at)[:10]}",
            line.corrects or ("this statement" if line.charged_at >= statement.start else "an open month"),
            line.reason,
            _exact(line.microusd),
            _rounded(line.cents),
        )
        for line in statement.refunds
    ]
    return f"<h2>Refunds and corrections of earlier months</h2>{_table(head, rows)}"


def _end_users(statement: Statement, names: Names) -> str:
    head = ("End user", "Reference", *map(_Figure, ("Videos", "Charged $", "Refunded $", "Net $")))
    rows = [
        _row(
            name_of(line.end_user, names) or "(none)",
            line.end_user,
            _count(line.videos),
            _exact(line.charged_microusd),
            _exact(line.refunded_microusd),
            _exact(line.charged_microusd - line.refunded_microusd),
        )
        for line in statement.end_users
    ]
    charged = sum(line.charged_microusd for line in statement.end_users)
    refunded = sum(line.refunded_microusd for line in statement.end_users)
    videos = sum(line.videos for line in statement.end_users)
    sums = map(_exact, (charged, refunded, charged - refunded))
    return _table(head, [*rows, _row("Total", "", _count(videos), *sums, kind="sum")])


def _notes(statement: Statement) -> str:
    books = ", ".join(book[:12] for book in statement.books) or "none"
    held = usd_text(statement.held_microusd)
    notes = (
        "A video is charged in the month in which it was completed, by the price in force when it was accepted.",
        "Lines are rounded to the cent, half up; the total once, from the exact sum; Rounding is the difference.",
        f"Still held when this was made, for videos accepted before the month's end: $ {held}.",
        "What is held now, and what it costs in the end, stands on a later statement.",
        f"The file of charges has {statement.charges:,} rows; its SHA-256 is {statement.charges_sha256}.",
        f"Price books: {books}. Made by {statement.software}.",
    )
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
