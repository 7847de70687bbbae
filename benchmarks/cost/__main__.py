"""`make bench SUITE=cost`: what a month costs, by the prices in benchmarks/cost/prices.yaml; docs/cost.md has it."""

from pathlib import Path
from typing import Any

import yaml

BOOK: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text())
HOURLY = ("hour", "vCPU-hour")


def monthly(item: str, quantity: float) -> float | None:
    """Return dollars a month; None if the price is not known."""
    entry = BOOK["prices"][item]
    if entry["price"] is None:
        return None
    return float(entry["price"]) * quantity * (BOOK["hours"] if entry["unit"] in HOURLY else 1)


def prices() -> list[str]:
    """Return a table of the prices and their sources."""
    lines = ["| what | price | for a | read in |", "| --- | ---: | --- | --- |"]
    for entry in BOOK["prices"].values():
        price = "" if entry["price"] is None else f"{entry['price']:g}"
        lines.append(f"| {entry['what']} | {price} | {entry['unit']} | {entry['source'] or ''} |")
    return lines


def plans() -> list[str]:
    """Return a table of each plan's monthly costs."""
    names = list(BOOK["plans"])
    lines = [f"| what | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    sums = dict.fromkeys(names, 0.0)
    for item, entry in BOOK["prices"].items():
        cells = []
        for name in names:
            quantity = BOOK["plans"][name].get(item, 0)
            cost = monthly(item, quantity)
            sums[name] += cost or 0
            amount = "?" if cost is None else f"{cost:.2f}"
            cells.append(f"{quantity} x: {amount}" if quantity else "")
        if any(cells):
            lines.append(f"| {entry['what'].partition(' (')[0]} | {' | '.join(cells)} |")
    lines.append("| **sum of what is known** | " + " | ".join(f"**{total:.2f}**" for total in sums.values()) + " |")
    return lines


def night() -> list[str]:
    """Return a table of what is saved by nodes that run in working hours only."""
    hours, work, nodes = BOOK["hours"], BOOK["night"]["work"], BOOK["night"]["nodes"]
    price = BOOK["prices"]["node"]["price"]
    always, saved = nodes * price * hours, nodes * price * (hours - work)
    lines = [f"| {nodes} nodes more than the least | a month |", "| --- | ---: |"]
    lines += [f"| always there | {always:.2f} |", f"| there for {work} of {hours} hours | {always - saved:.2f} |"]
    return [*lines, f"| **saved** | **{saved:.2f}** |"]


def release() -> list[str]:
    """Return a table of a release's own cost; its storage and signatures are a hundredth of a cent."""
    minutes = BOOK["release"]["build"]
    return ["| a release | dollars |", "| --- | ---: |", f"| {minutes} minutes of CodeBuild | {releasing():.2f} |"]


def releasing() -> float:
    """Return the dollars of a release's build minutes."""
    return float(BOOK["release"]["build"] * BOOK["prices"]["build"]["price"])


def credits() -> list[str]:
    """Return a table of what CPU beyond the credits costs at most, beside the node itself."""
    hours, node, surplus = BOOK["hours"], BOOK["prices"]["node"]["price"], BOOK["prices"]["surplus"]["price"]
    return [
        "| a t4g.small | a month |",
        "| --- | ---: |",
        f"| itself | {node * hours:.2f} |",
        f"| and both vCPU flat out, in the mode `unlimited` | {(2 - 0.4) * surplus * hours:.2f} |",
        f"| vCPU of surplus that cost as much as another node | {node / surplus:.2f} |",
    ]


def main() -> None:
    """Print all tables."""
    print(f"US dollars, {BOOK['region']}, on demand, read on {BOOK['read']}; a month has {BOOK['hours']} hours.")
    for table in (plans(), release(), night(), credits(), prices()):
        print("\n" + "\n".join(table))


if __name__ == "__main__":
    main()
