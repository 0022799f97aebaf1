"""What whole runs cost beside those of others, as tables."""

from typing import Any


def speed(result: dict[str, Any]) -> list[str]:
    """The demo's job beside plain loops, and beside Flower."""
    precision = "bfloat16" if result["bf16"] else "float32"
    ways = {
        "plain": "that loop on hanse's batches, in which rows of like length stand together",
        "float32": "hanse in float32, one client after another",
        "one by one": f"in the precision it chose ({precision}), one after another",
        "as it comes": f"as it comes (`clients_per_pass: auto` took {result['clients_per_pass']})",
    }
    lines = [
        "| the demo's job: tokens a second, padding not counted | ÷ a plain loop in float32 "
        "| ÷ that loop on hanse's batches |",
        "|---|---|---|",
        *(
            f"| {what} | {result['over_as_written'][way]:.2f} | {result['speedup'][way]:.2f} |"
            for way, what in ways.items()
        ),
        "",
        "The plain loop is Hugging Face's model and PEFT's adapter, one client after another, in "
        "batches of a shuffled DataLoader.",
    ]
    return [*lines, *([] if result["flower"] is None else ["", *_flower(result["flower"])])]


def _flower(result: dict[str, Any]) -> list[str]:
    """Whole commands beside Flower's simulation."""
    over = result["over_flower"]
    rows = {"hanse": "`hanse run` as it comes", "hanse in float32": "in float32"}
    lines = [
        "| the same job ÷ by Flower's simulation, with clients as its templates have them "
        "| CPU seconds | seconds | memory | CPU seconds of a further round |",
        "|---|---|---|---|---|",
    ]
    for way, what in rows.items():
        whole, rest = over[way]["whole"], over[way].get("further_round", {})
        further = f"{rest['cpu_seconds']:.2f}" if rest else ""
        lines.append(
            f"| {what} | {whole['cpu_seconds']:.2f} | {whole['seconds']:.2f} "
            f"| {whole['peak_bytes']:.2f} | {further} |"
        )
    return [
        *lines,
        "",
        "One round from start to result, every process counted: what a user waits and pays for, "
        "in which starting up is much. flwr " + result["versions"]["flwr"] + ".",
    ]


def small_clients(result: dict[str, Any]) -> list[str]:
    """Whole commands for many small clients, beside a plain loop."""
    over, job = result["over_loop"], result["job"]
    rows = {"hanse": "`hanse run` as it comes", "hanse in float32": "in float32"}
    return [
        "| many small clients ÷ a plain PyTorch + PEFT loop | CPU seconds | seconds | memory |",
        "|---|---|---|---|",
        *(
            f"| {what} | {over[way]['cpu_seconds']:.2f} | {over[way]['seconds']:.2f} "
            f"| {over[way]['peak_bytes']:.2f} |"
            for way, what in rows.items()
        ),
        "",
        f"{job['clients']} clients × {job['steps']} steps × {job['batch']} × {job['tokens']} "
        f"tokens for {job['rounds']} rounds, a random Llama of 6 layers, 256 wide, scored as often "
        "by both. Whole commands from start to result; the loop trains one client after another "
        "in float32.",
    ]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def own_data(result: dict[str, Any]) -> list[str]:
    """Seconds of the first commands for new data, and the lengths that they count."""
    return [
        "| empty caches | `hanse init` | `hanse check` |",
        "|---|---|---|",
        *(
            f"| {what} | {_seconds(seconds.get('init'))} | {_seconds(seconds['check'])} |"
            for what, seconds in result["seconds"].items()
        ),
        "",
        "`check` was the first command that needed the model, and converted it; later ones need "
        "not. The four silos are JSON lines, compressed JSON lines, CSV, and JSON lines with "
        "other names of columns.",
        "",
        "| conversations in | tokens of an example, by `hanse init` | of all rows | deviation |",
        "|---|---|---|---|",
        *(
            f"| {row['language']} | {row['written']:.1f} | {row['counted']:.1f} "
            f"| {round(100 * row['deviation'], 1) + 0:+.1f} % |"
            for row in result["lengths"]
        ),
    ]


def token_alignment(result: dict[str, Any]) -> list[str]:
    """What it costs to align two tokenizers, and how many places find their counterpart."""
    return [
        "| from | to | seconds for the map | tokens with an equal text "
        f"| seconds for {result['texts']:,} texts of {result['tokens']} tokens "
        "| places that match |",
        "|---|---|---|---|---|---|",
        *(
            f"| {pair['source']} ({pair['source_tokens']:,}) "
            f"| {pair['target']} ({pair['target_tokens']:,}) | {pair['map_seconds']:.1f} "
            f"| {100 * pair['equal_share']:.0f} % | {pair['alignment_seconds']:.1f} "
            f"| {100 * pair['found_share']:.0f} % |"
            for pair in result["pairs"]
        ),
        "",
        "Seconds of the processor. A map is made once for a pair of tokenizers and read from the "
        "cache afterwards.",
    ]
