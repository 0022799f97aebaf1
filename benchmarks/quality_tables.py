"""What training came to, as tables."""

from typing import Any

from cells import counted, percent, points, rates, standing, ticked
from spread import over_seeds


def quickstart(result: dict[str, Any]) -> list[str]:
    """Accuracy of the base model and of the federated one, by seed."""
    lines = [
        "| seed | base | four silos together | gain in points, paired 95 % interval | sent |",
        "|---|---|---|---|---|",
    ]
    for row in result["seeds"]:
        low, high = (100 * value for value in row["interval"])
        lines.append(
            f"| {row['seed']} | {100 * row['base']['accuracy']:.2f} % "
            f"| {100 * row['federated']['accuracy']:.2f} % "
            f"| {100 * row['gain']:+.2f} ({low:+.2f} to {high:+.2f}) | {row['megabytes']:.0f} MB |"
        )
    low, high = (100 * value for value in result["mean_gain_interval"])
    return [
        *lines,
        "",
        f"Accuracy on {result['reviews']:,} held-out reviews; the mean gain of the seeds is "
        f"**{100 * result['mean_gain']:.1f} points** "
        f"(95 % interval over seeds, Student's t: {low:.1f} to {high:.1f}).",
        *_beside_plain(result.get("beside_plain")),
    ]


def _beside_plain(both: dict[str, Any] | None) -> list[str]:
    """One seed's accuracy beside the same with products as transformers and PEFT compute them."""
    if both is None:
        return []
    return [
        "",
        f"Seed {both['seed']} with `model.products: plain`, as transformers and PEFT compute: "
        f"{100 * both['plain']['accuracy']:.2f} %; hanse's kernels are ahead by "
        f"{points(both['ahead'])} points on the same reviews.",
    ]


def baselines(result: dict[str, Any]) -> list[str]:
    """Each kind of variant: its accuracy, what federated training is ahead by, and what it took."""
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
    """Every algorithm on both deals, beside FedAvg and the base model."""
    lines = []
    for deal, title in (("alike", "reviews dealt alike"), ("unlike", "Dirichlet 0.1")):
        ways = result["deals"].get(deal, {})
        lines += [
            f"| {title} | accuracy of the server's model | ahead of `fedavg` in points, interval "
            "over reviews | over seeds | on the silos' own reviews, ahead over seeds | up, down in "
            "a round | seconds of training, of the server |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in ways.items():
            lines.append(_compared(name, {**row, **result.get("rounds", {}).get(name, {})}))
        lines.append("")
    some = [row for ways in result["deals"].values() for row in ways.values() if row.get("seeds")]
    own = next((row["own_items"] for row in some if row.get("own_items")), 0)
    return [
        *lines,
        f"{counted(result, some)} Intervals of 95 %: paired over reviews, each a mean over the "
        "seeds, which holds for these deals of the reviews alone; over the seeds' differences "
        "(Student's t), which holds for deals like these. Silos hold "
        f"out {own:,.0f} reviews, which are scored with what each silo keeps; the server has none "
        "of the models of methods that keep one at each silo, so it has no score of these. "
        + rates(result)
        + " Seconds are of a round, on the same reviews for all, one at a time.",
    ]


def _compared(name: str, row: dict[str, Any]) -> str:
    if "no_result" in row:
        return f"| {ticked(name)} | no result: {row['no_result']} | | | | | |"
    server = ["—", "—", "—"]
    if row.get("family") != "personal":
        server = [f"{100 * row['accuracy']:.1f} %"]
        server += [points(row["ahead"]), points(row["ahead_by_seed"])]
    own, sent, spent = "—", "—", "—"
    if row["own_accuracy"] is not None:
        ahead = points(row["own_ahead"])
        own = f"{100 * row['own_accuracy']:.1f} %" + (f", {ahead}" if ahead else "")
    if row["up_bytes"] is not None:
        sent = f"{row['up_bytes'] / 1e6:.2f}, {row['down_bytes'] / 1e6:.2f} MB"
    if "training_seconds" in row:
        spent = f"{row['training_seconds']:.1f} s, {row['server_seconds']:.2f} s"
    return f"| {ticked(name)} | {' | '.join(server)} | {own} | {sent} | {spent} |"


def adapters(result: dict[str, Any]) -> list[str]:
    """Every adapter, trained by silos alone, together, and with all reviews in one place."""
    shown = {name: row for name, row in result["ways"].items() if not name.endswith("frozen")}
    lines = [
        "| `adapter:` | trained | a round sends | federated, over seeds | silos alone | ahead of "
        "federated in points, interval over reviews; over seeds | all in one place | ahead of "
        "federated, over reviews; over seeds | seconds of training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    base = result.get("base")
    if base:
        lines.append(f"| base: before any training | | | {standing(base)} | | | | | |")
    lines += [_adapter(name, row) for name, row in shown.items()]
    return [
        *lines,
        "",
        f"{counted(result, [base or {}])} Intervals of 95 %: paired over reviews, each a mean "
        "over the seeds, which holds for these deals of the reviews alone; over the seeds "
        "(Student's t), which holds for deals like these. Bytes are those of all four "
        "silos, both ways; the count has the classification head in it. " + rates(result),
    ]


def _adapter(name: str, row: dict[str, Any]) -> str:
    if "no_result" in row:
        return f"| {ticked(name)} | | | no result: {row['no_result']} | | | | | |"
    return (
        f"| {ticked(name)} | {row['trained']:,} ({percent(row['share'])} %) "
        f"| {_size(row['bytes'])} | {standing(row['federated'])} | {_beside(row, 'alone')} "
        f"| {_beside(row, 'centralised')} | {row['seconds']:.1f} s |"
    )


def wire(result: dict[str, Any]) -> list[str]:
    """Every codec of the upload: its bytes, its losses, and what it is ahead of no codec."""
    rows: dict[str, dict[str, Any]] = result["rows"]
    rounds = list(next(row for name, row in rows.items() if name != "base")["loss"])
    lines = [
        "| upload | bytes of a round, share of none | loss after "
        + ", ".join(rounds)
        + " rounds | bytes until the loss is none's in the end | accuracy, over seeds | ahead of "
        "none in points, over reviews; over seeds | test loss ÷ none's: mean, of each seed "
        "| seconds of a round on the link |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_on_the_wire(name, row, rows["none"]) for name, row in rows.items()]
    family = next(iter(result["families"].values()))
    tried = [float(rate) for rate in family["tried"]]
    link = result["protocol"]["link"]
    return [
        *lines,
        "",
        f"{counted(result, [rows['base']])} The loss in the third column is that of 500 "
        "validation reviews. "
        "Intervals of 95 %: paired over reviews, each a mean over the seeds; over the seeds' "
        "differences (Student's t). Bytes are those of all uploads of four silos, messages whole. "
        f"Learning rate {family['rate']:g} for all (tried {min(tried):g} to {max(tried):g}). The "
        f"link has {link['up'] / 1e6:g} Mbit/s up and {link['down'] / 1e6:g} down; seconds of "
        "training are not in it.",
    ]


def _on_the_wire(name: str, row: dict[str, Any], none: dict[str, Any]) -> str:
    if "no_result" in row:
        return f"| {ticked(name)} | no result: {row['no_result']} | | | | | | |"
    losses = ", ".join(f"{loss:.4f}" for loss in row["loss"].values())
    both = "; ".join(filter(None, (points(row.get("ahead")), points(row.get("ahead_by_seed")))))
    of_seeds = [
        one["test_loss"] / plain["test_loss"]
        for one, plain in zip(row["runs"], none["runs"], strict=True)
    ]
    ratio = f"{row['test_loss'] / none['test_loss']:.3f}: " + ", ".join(
        f"{one:.2f}" for one in of_seeds
    )
    if name in ("base", "centralised"):
        return f"| {name} | — | {losses} | — | {standing(row)} | {both} | {ratio} | — |"
    share = f", {percent(row['share'])} %" if "share" in row else ""
    until = "not reached" if row["bytes_until"] is None else f"{row['bytes_until'] / 1e6:.2f} MB"
    if row["bytes_until"] is None and row["reached"]:
        until = f"reached with {row['reached']} of {len(row['runs'])} seeds"
    if row is none:
        until = ratio = ""
    return (
        f"| `{name}` | {row['up_bytes']:,.0f}{share} | {losses} | {until} | {standing(row)} "
        f"| {both} | {ratio} | {row['link_seconds']:.3f} |"
    )


def _beside(row: dict[str, Any], name: str) -> str:
    """Two cells: a kind's accuracy, and how far it is ahead of the federation."""
    if name not in row:
        return "— | —"
    kind, pairs = row[name], zip(row[name]["seeds"], row["federated"]["seeds"], strict=True)
    by_seed = over_seeds([own - other for own, other in pairs])
    both = "; ".join(filter(None, (points(kind["ahead_of_federated"]), points(by_seed))))
    return f"{100 * kind['accuracy']:.1f} % | {both}"


def _size(count: float) -> str:
    return f"{count / 1e6:.2f} MB" if count < 1e7 else f"{count / 1e6:.0f} MB"


def learned_codec(result: dict[str, Any]) -> list[str]:
    """The learned codec beside others of its size, what varies in it, and runs with it."""
    lines = ["| codec | cosine | its range | SNR in dB | bytes |", "|---|---|---|---|---|"]
    groups = {
        "": result["compared"],
        "learned, ": result["swept"],
        "on the silos of the fit: ": {
            name: result["on the silos of the fit"][name] for name in ("learned", "mean of the fit")
        },
    }
    for prefix, rows in groups.items():
        for name, row in rows.items():
            share = f" ({100 * row['fell_back']:.0f} % int4)" if row["fell_back"] else ""
            lines.append(
                f"| {prefix}{name}{share} | {row['cosine']:.3f} "
                f"| {row['least']:.3f} to {row['most']:.3f} | {row['snr']:.1f} "
                f"| {row['bytes']:,.0f} |"
            )
    lines += ["", "| run | test loss | its range | accuracy | AUC | bytes up | int4 blocks |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in result["runs"].items():
        lines.append(
            f"| {name} | {row['loss']:.3f} | {row['least']:.3f} to {row['most']:.3f} "
            f"| {100 * row['accuracy']:.1f} % | {row['auc']:.3f} | {row['bytes_up']:,.0f} "
            f"| {100 * row['fell_back']:.0f} % |"
        )
    return [
        *lines,
        "",
        f"Cosine and signal to noise of each change of {result['numbers']:,} numbers with what is "
        "decoded: means over silos that the codec was not fitted on, six rounds, and "
        f"{len(result['seeds'])} seeds, with the range over seeds; bytes of a change, without "
        f"framing. The codec is a file of {result['codec_bytes']:,} bytes.",
    ]
