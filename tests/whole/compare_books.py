"""
Compares the sellers' books with the bill, to the micro-dollar. Standard library only.

    python compare_books.py BOOKS_URL REPORT.csv [UNKNOWN.json]

BOOKS_URL is `…/admin/books` of the simulated sellers; REPORT.csv is what `reelay report spend --by
provider --format csv` printed, and UNKNOWN.json what `reelay attempts list --json` printed: purchases
whose end nobody knows, of which a seller may have charged some. Prints one line a seller; the exit code
is 1 where the two sides differ.
"""

import csv
import json
import sys
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any

MICRO = Decimal(1_000_000)


def microusd(usd: str) -> int:
    """Whole micro-dollars; a fraction of one would be an error on either side."""
    amount = Decimal(usd) * MICRO
    if amount != amount.to_integral_value():
        raise ValueError(f"{usd} USD is no whole number of micro-dollars")
    return int(amount)


def taken_by_sellers(books: dict[str, Any]) -> dict[str, int]:
    """Micro-dollars that each seller charged and did not give back."""
    taken: dict[str, int] = {}
    for account in books["accounts"]:
        kept = account["charged_microusd"] - account["refunded_microusd"]
        taken[account["seller"]] = taken.get(account["seller"], 0) + kept
    jobs: dict[str, int] = {}
    for job in books["jobs"]:
        jobs[job["seller"]] = jobs.get(job["seller"], 0) + job["charged_microusd"] - job["refunded_microusd"]
    if {seller: kept for seller, kept in taken.items() if kept} != {s: kept for s, kept in jobs.items() if kept}:
        raise ValueError(f"the sellers' accounts {taken} are not the sums of their jobs {jobs}")
    return taken


def check_line(line: dict[str, str]) -> None:
    """What tenants pay and what we absorb is what sellers take and our markup. Raises ValueError."""
    charged, seller = microusd(line["charged_usd"]), microusd(line["seller_usd"])
    markup, absorbed = microusd(line["markup_usd"]), microusd(line["absorbed_usd"])
    if charged + absorbed != seller + markup:
        raise ValueError(f"{line}: {charged} + {absorbed} is not {seller} + {markup}")


def compare(books: dict[str, Any], report: list[dict[str, str]], unknown: list[dict[str, Any]]) -> list[str]:
    """One line for each seller that differs."""
    taken = taken_by_sellers(books)
    ours: dict[str, int] = {}
    for line in report:
        check_line(line)
        ours[line["provider"]] = ours.get(line["provider"], 0) + microusd(line["seller_usd"])
    differences = []
    for seller in sorted(taken.keys() | ours.keys()):
        theirs, mine = taken.get(seller, 0), ours.get(seller, 0)
        maybe = [microusd(one["possible_cost_usd"]) for one in unknown if one["provider"] == seller]
        if theirs - mine not in sums_of_some(maybe):
            differences.append(f"{seller}: it took {theirs}, our ledger says {mine}, unknown are {maybe}")
    return differences


def sums_of_some(amounts: list[int]) -> set[int]:
    """What any choice of them comes to, none and all among them."""
    sums = {0}
    for amount in amounts:
        sums |= {one + amount for one in sums}
    return sums


def main(arguments: list[str]) -> int:
    with urllib.request.urlopen(arguments[0], timeout=30) as answer:  # noqa: S310  # the address is the caller's own
        books = json.load(answer)
    with Path(arguments[1]).open(newline="") as file:
        report = list(csv.DictReader(file))
    unknown = json.loads(Path(arguments[2]).read_text()) if len(arguments) > 2 else []
    differences = compare(books, report, unknown)
    print("\n".join(differences) or "the books agree")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
