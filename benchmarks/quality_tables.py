"""What training came to, as tables."""

from typing import Any


def quickstart(result: dict[str, Any]) -> list[str]:
    """Accuracy of the base model and of the federated one, by seed."""
    lines = [
        "| seed | base | four silos together | gain in points, paired 95 % interval | sent |",
        "|---|---|---|---|---|",
    ]
    for row in result["seeds"]:
        low, high = (100 * value for value in row["interval"])
        lines.append(
            f"| {row['seed']} | {100 * row['base']['accuracy']:.1f} % "
            f"| {100 * row['federated']['accuracy']:.1f} % "
            f"| {100 * row['gain']:+.1f} ({low:+.1f} to {high:+.1f}) | {row['megabytes']:.0f} MB |"
        )
    low, high = (100 * value for value in result["mean_gain_interval"])
    return [
        *lines,
        "",
        f"Accuracy on {result['reviews']:,} held-out reviews; the mean gain of the seeds is "
        f"**{100 * result['mean_gain']:.1f} points** "
        f"(95 % interval over seeds, Student's t: {low:.1f} to {high:.1f}).",
    ]


def ladder(result: dict[str, Any]) -> list[str]:
    """Each kind of rung: its accuracy, what federated training is ahead by, and what it took."""
    lines = [
        "| | accuracy | federated is ahead by, in points | optimizer steps | reviews seen |",
        "|---|---|---|---|---|",
    ]
    for line in result["summary"]:
        lead = line["against_federated"]
        ahead = (
            f"{-100 * lead['value']:+.1f} ({-100 * lead['high']:+.1f} to {-100 * lead['low']:+.1f})"
        )
        lines.append(
            f"| {line['name']}: {line['what']} | {100 * line['value']:.1f} % "
            f"| {'' if line['name'] == 'federated' else ahead} "
            f"| {line['steps']:,.0f} | {line['examples']:,.0f} |"
        )
    seeds = len(result["seeds"])
    return [
        *lines,
        "",
        result["verdict"],
        "",
        f"{result['clients']} silos, {result['test_items']:,} test reviews, means over {seeds} "
        "seeds with 95 % intervals (Student's t); the steps of a federation are those of all "
        f"silos. It took {result['minutes']:.0f} minutes.",
    ]


def comparison(result: dict[str, Any]) -> list[str]:
    """Every algorithm on both deals, beside FedAvg."""
    lines = []
    for deal, title in (("alike", "reviews dealt alike"), ("unlike", "Dirichlet 0.1")):
        ways = result["deals"][deal]
        lines += [
            f"| {title} | accuracy, ahead of `fedavg` in points | on the silos' own reviews | up, "
            "down in a round | seconds of training, of the server |",
            "|---|---|---|---|---|",
        ]
        for name, row in ways.items():
            up, down = row["up_bytes"] / 1e6, row["down_bytes"] / 1e6
            lines.append(
                f"| {_ticked(name)} | {100 * row['accuracy']:.1f} %{_ahead(row['ahead'])} "
                f"| {100 * row['own_accuracy']:.1f} %{_ahead(row['own_ahead'])} "
                f"| {up:.2f}, {down:.2f} MB "
                f"| {row['training_seconds']:.1f} s, {row['server_seconds']:.2f} s |"
            )
        lines.append("")
    own = next(iter(result["deals"]["unlike"].values()))["own_items"]
    return [
        *lines,
        f"Means over seeds {', '.join(map(str, result['seeds']))}: {result['test_items']:,} test "
        "reviews, the same for all, with paired 95 % intervals over reviews; "
        f"{own:,.0f} reviews that the silos held out, with what each silo keeps, and intervals "
        "over seeds (Student's t). Learning rates by validation: "
        + ", ".join(f"{_ticked(name)} {rate:g}" for name, rate in result["rates"].items())
        + f". These runs took {result['minutes']:.0f} minutes, two at a time, without those that "
        "rates were chosen by. Seconds are of a round, on the same reviews for all, one at a time.",
    ]


def adapters(result: dict[str, Any]) -> list[str]:
    """Every adapter, trained by silos alone, together, and with all reviews in one place."""
    shown = {name: row for name, row in result["ways"].items() if not name.endswith("frozen")}
    lines = [
        "| `adapter:` | trained | a round sends | silos alone, in points | federated | all in one "
        "place, in points | seconds of training |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in shown.items():
        lines.append(
            f"| {_ticked(name)} | {row['trained']:,} ({_percent(row['share'])} %) "
            f"| {_size(row['bytes'])} "
            f"| {_beside(row.get('alone'))} | {100 * row['federated']['accuracy']:.1f} % "
            f"| {_beside(row['centralised'])} | {row['seconds']:.1f} s |"
        )
    return [
        *lines,
        "",
        f"Accuracy on {result['test_items']:,} test reviews, the same for all, means over seeds "
        f"{', '.join(map(str, result['seeds']))}; in brackets what is ahead of the federation, "
        "with paired 95 % intervals over reviews. A silo alone does as many steps as in the "
        "federation, all in one place as many as the silos together. Bytes are those of all four "
        "silos, both ways; the count has the classification head in it. Learning rates by "
        "validation in the federation: "
        + ", ".join(f"{_ticked(name)} {result['rates'][name]:g}" for name in shown)
        + "; what freezes layers takes `full`'s. All runs took "
        f"{result['minutes']:.0f} minutes, two at a time.",
    ]


def _beside(kind: dict[str, Any] | None) -> str:
    if kind is None:
        return "—"
    value, low, high = (100 * bound for bound in kind["ahead_of_federated"])
    return f"{100 * kind['accuracy']:.1f} % ({value:+.1f}: {low:+.1f} to {high:+.1f})"


def _size(count: float) -> str:
    return f"{count / 1e6:.2f} MB" if count < 1e7 else f"{count / 1e6:.0f} MB"


def _ticked(name: str) -> str:
    algorithm, *rest = name.split(", ")
    return ", ".join([f"`{algorithm}`", *rest])


def _ahead(bounds: list[float] | None) -> str:
    if bounds is None:
        return ""
    value, low, high = (100 * bound for bound in bounds)
    return f", {value:+.1f} ({low:+.1f} to {high:+.1f})"


def _percent(share: float) -> str:
    """Two digits of a share in percent, and no power of ten."""
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.0f}"
