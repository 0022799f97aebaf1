"""What training costs, as tables: seconds, memory, bytes."""

import statistics
from typing import Any


def overhead(result: dict[str, Any]) -> list[str]:
    """hanse beside a plain loop, and labels-only logits beside all."""
    ratios = result["cpu_ratio"]
    return [
        "| measured | ratio |",
        "|---|---|",
        "| CPU seconds of a run ÷ a plain PyTorch + PEFT loop doing the same steps "
        f"| {ratios['ours_over_plain']:.2f} |",
        "| the same, the plain loop too computing logits only where there is a label "
        f"| {ratios['ours_over_plain_labels_only']:.2f} |",
        "| steps per second, logits where there is a label ÷ everywhere (batch 4 × 128), "
        f"{'bfloat16' if result['bf16'] else 'float32'}, adapters on every linear layer "
        f"| {result['labels_only_speedup']:.2f} |",
    ]


def logits(result: dict[str, Any]) -> list[str]:
    """Labels-only logits beside all, in full precision and with fewer adapters."""
    return [
        "| measured | ratio |",
        "|---|---|",
        "| steps per second, logits where there is a label ÷ everywhere (batch 4 × 128), float32, "
        f"adapters on q and v | {result['labels_only_speedup']:.2f} |",
    ]


def low_rank(result: dict[str, Any]) -> list[str]:
    """Bytes and ranks that the codec svd leaves of changes, by threshold."""
    ways = result["ways"]
    thresholds = [*next(iter(next(iter(ways.values())).values()))]
    return [
        f"| trained | sent | {' | '.join(f'T = {threshold}' for threshold in thresholds)} |",
        f"|---|---|{'---|' * len(thresholds)}",
        *(
            f"| {way} | {what} | {' | '.join(map(_bytes_and_rank, rows.values()))} |"
            for way, sent in ways.items()
            for what, rows in sent.items()
        ),
        "",
        "Bytes of a message ÷ those without the codec; in brackets the median rank ÷ the full one.",
    ]


def _bytes_and_rank(row: dict[str, float]) -> str:
    return f"{100 * row['bytes']:.1f} % ({100 * row['median_rank']:.1f})"


def precision(result: dict[str, Any]) -> list[str]:
    """What the precision of the base model costs and saves."""
    lines = [
        "| base model | its weights | kept for the backward pass | steps per second ÷ float32 "
        "| held-out loss before → after |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["variants"].items():
        kept = f"{row['kept_bytes'] / 1e6:,.0f} MB" if "kept_bytes" in row else ""
        lines.append(
            f"| {name} | {row['weights_bytes'] / 1e6:,.0f} MB | {kept} | {row['speedup']:.2f} "
            f"| {row['loss_before']:.3f} → {row['loss_after']:.3f} |"
        )
    dtype = "bfloat16" if result["chosen"]["bf16"] else "float32"
    return [
        *lines,
        "",
        f"SmolLM2-135M on the demo's rows, {result['batch']} a step; {result['rows']:,} rows held "
        f"out, {result['steps']} steps of training. The last three compute in {dtype}.",
    ]


def profile_step(result: dict[str, Any]) -> list[str]:
    """The shares of hanse's training step by kind of work, and its speed beside a plain loop."""
    lines = [
        "| model | a step ÷ the plain loop's | tokens a second | of the machine's peak "
        "| frozen products | adapter | other operators | Python and dispatch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cases = result["cases"]
    for ours, plain in zip(cases[::2], cases[1::2], strict=True):
        shares, peak = ours["shares"], ours["share_of_peak"]
        parts = {part: shares[part] for part in ("frozen products", "Python and dispatch")}
        parts["adapter"] = shares["adapter products"] + shares["adapter scaling and sums"]
        parts["others"] = 1 - sum(parts.values())
        order = ("frozen products", "adapter", "others", "Python and dispatch")
        lines.append(
            f"| {ours['model']}, {ours['precision']} "
            f"| {ours['step_seconds'] / plain['step_seconds']:.2f} "
            f"| {ours['tokens_a_second']:,.0f} | {'' if peak is None else f'{peak:.0%}'} | "
            + " | ".join(f"{parts[part]:.0%}" for part in order)
            + " |"
        )
    return [
        *lines,
        "",
        f"LoRA of rank {result['rank']} on every linear layer, batches of {result['batch']} × "
        f"{result['tokens']} tokens, one client. The plain loop has the same precision, and logits "
        "at every position. The peak is that of a large matrix product in the same precision.",
    ]


def prefix(result: dict[str, Any]) -> list[str]:
    """Epochs with the frozen layers below the adapters computed once, beside others."""
    ratios = result["ratios"]
    return [
        "| SmolLM2-135M, float32, LoRA on q and v in the top third of the layers | ratio |",
        "|---|---|",
        "| an epoch by a plain PyTorch + PEFT loop ÷ with the cache, from the second epoch on "
        f"| {ratios['over_loop']:.2f} |",
        f"| the same by hanse without the cache ÷ with it | {ratios['over_without']:.2f} |",
        f"| scoring as many rows without the cache ÷ with it | {ratios['scoring']:.2f} |",
        "| the first epoch with the cache, which fills it ÷ an epoch without "
        f"| {ratios['first_epoch']:.2f} |",
        "",
        f"{result['reviews']} film reviews of one silo in batches of 8, medians; the mean losses "
        f"of an epoch differ by at most {result['losses_apart']:.0e}.",
    ]


def batched_clients(result: dict[str, Any]) -> list[str]:
    """Rounds of clients trained together, against one after another."""
    lines = [
        "| model | clients | batch × tokens | times as fast together, by clients per pass | auto "
        "| auto over a PEFT loop |",
        "|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        sizes = ", ".join(
            f"{size}: {value:.2f}" for size, value in case["speedup"].items() if size.isdecimal()
        )
        usual = max(case["auto"], key=case["auto"].count)
        taken = usual if usual > 1 else "off"
        lines.append(
            f"| {case['shape']} | {case['clients']} | {case['batch']} × {case['tokens']} | {sizes} "
            f"| {taken} ({case['auto_speedup']:.2f}) "
            f"| {case['auto_speedup_over_plain']:.2f} |"
        )
    steps = " and ".join(f"{number} ({shape})" for shape, number in result["steps"].items())
    return [
        *lines,
        "",
        f"Seconds of a round of {steps} steps of each client, medians of {result['repeats']}, as "
        "ratios to `clients_per_pass: off`, which is one after another through PEFT's layers; at "
        "last to a plain loop of PyTorch and PEFT on the same batches. toy: a Llama of 4 layers, "
        "128 wide.",
    ]


def busy_machine(result: dict[str, Any]) -> list[str]:
    """Seconds and CPU seconds of a training step, by what else runs and how threads wait."""
    medians = result["medians"]
    fewest = min(len(steps) for ways in result["samples"].values() for steps in ways.values())
    lines = [
        f"| seconds (CPU seconds) of a step | {' | '.join(medians)} |",
        "|---|" + "---|" * len(medians),
    ]
    for way in next(iter(medians.values())):
        cells = (
            f"{steps[way]['seconds']:.2f} ({steps[way]['cpu_seconds']:.2f})"
            for steps in medians.values()
        )
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "SmolLM2-135M with LoRA on every linear layer, batch 4 × 40, "
        f"{'bfloat16' if result['bf16'] else 'float32'}. The other programs have one thread that "
        "never waits; the other run trains in the same way with the same setting. Medians of at "
        f"least {fewest} steps, taking turns.",
    ]


def scale(result: dict[str, Any]) -> list[str]:
    """Memory and seconds with many clients."""
    alone, together = result["runs"]
    most = str(result["clients"])
    first, again = (
        statistics.median(result["startup_seconds"][which][most]) for which in ("first", "again")
    )
    *adding, stepping = result["server"]["at_most"]
    return [
        f"| {result['clients']:,} clients, {result['rounds']} rounds with 1 % of them | |",
        "|---|---|",
        f"| resident memory after the last round ÷ after the second | {alone['growth']:.3f} |",
        "| a client beyond its training, one after another "
        f"| {1000 * alone['seconds_a_client_beyond_training']:.1f} ms |",
        f"| the same, {together['clients_per_pass']} at a time "
        f"| {1000 * together['seconds_a_client_beyond_training']:.1f} ms |",
        f"| start-up with {result['rows']:,} rows, and with their tokens kept from before "
        f"| {first:.1f} s, {again:.1f} s |",
        "| the server while clients work, beyond the model "
        f"| {max(result['server']['held_while_clients_work']):.2f} adapters |",
        f"| the same at most, while answers are added | {max(adding):.2f} adapters |",
        f"| the same at most, in the step and while the round is saved | {stepping:.2f} adapters |",
    ]


def aggregation(result: dict[str, Any]) -> list[str]:
    """Factors combined as factors, beside the dense product."""
    extra, apart = result["extra_over_stacked"], result["cut_apart"]
    clients, rank, size = result["clients"], result["rank"], result["size"]
    return [
        f"| {clients} clients of rank {rank}, one matrix of {size:,} × {size:,}, cut to rank "
        f"{rank} | by factors | dense, with a full SVD |",
        "|---|---|---|",
        f"| times as fast | {result['speedup']:.0f} | 1 |",
        f"| extra memory ÷ the stacked factors | {extra['factored']:.2f} | {extra['dense']:.1f} |",
        "| largest error ÷ largest entry, against float64 "
        f"| {apart['factored']:.1e} | {apart['dense']:.1e} |",
    ]


def gpu(result: dict[str, Any]) -> list[str]:
    """Clients trained together on a GPU against one after another, and the share of its peak."""
    whole = result["share"]
    lines = [
        "| model | clients | batch × tokens | times as fast together "
        "| memory, one after another | memory, together |",
        "|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        alone, together = (case["peak_memory"][way] / 1e9 for way in ("off", "together"))
        lines.append(
            f"| {case['shape']} | {case['clients']} | {case['batch']} × {case['tokens']} "
            f"| {case['speedup']:.2f} | {alone:.1f} GB | {together:.1f} GB |"
        )
    return [
        *lines,
        "",
        f"All clients of a case in one pass, {result['steps']} steps each, in bfloat16; medians "
        f"of {result['repeats']}. {whole['clients']} clients of {whole['batch']} × "
        f"{whole['tokens']} on {whole['shape']}, of which `clients_per_pass: auto` took "
        f"{whole['size']} at a time, reach {100 * whole['share']:.1f} % of the "
        f"{whole['peak_flops'] / 1e12:.0f} TFLOP/s "
        "of a large matrix product.",
    ]


def deployed(result: dict[str, Any]) -> list[str]:
    """What a round over Flower costs beyond training, and the same adapter as in one process."""
    ways = result["deployments"]
    columns = " | ".join(f"{way['silos']} silos, {way['trust']}" for way in ways)
    rows = {
        "until the first round has ended": "seconds_until_the_first_round_ended",
        "a round beyond its training": "seconds_a_round_beyond_training",
        "until a silo has answered, its training included": "seconds_until_a_silo_has_answered",
        "from there to the round's end": "seconds_from_there_to_the_end",
    }
    lines = [f"| | {columns} |", "|---|" + "---|" * len(ways)]
    for what, key in rows.items():
        lines.append(f"| {what} | " + " | ".join(f"{way[key]:.1f} s" for way in ways) + " |")
    updates = " | ".join(f"{way['update_bytes'] / 1e6:.1f} MB" for way in ways)
    memory, whole = (
        " | ".join(f"{way[key] / 2**20:.0f} MiB" for way in ways)
        for key in ("server_peak_memory", "server_and_flower_peak_memory")
    )
    loads = " | ".join(str(max(way["loads_of_each_silo"])) for way in ways)
    lines += [
        f"| an update | {updates} |",
        f"| the server's memory at most | {memory} |",
        f"| with that of its Flower | {whole} |",
        f"| loads of the base model, most of any silo | {loads} |",
    ]
    few, many = ways[0], ways[-1]
    own, all_of_it = (
        many[key] / few[key] for key in ("server_peak_memory", "server_and_flower_peak_memory")
    )
    demo = result["demo"]
    apart = "the same adapter, bit for bit," if demo["same"] else "another adapter"
    return [
        *lines,
        "",
        f"Medians of {result['rounds'] - 1} rounds. `{demo['experiment']}` for {demo['rounds']} "
        f"rounds, `clients_per_pass: off`, on {len(demo['loads_of_each_silo'])} deployed silos, "
        f"ends in {apart} as in one process; loads of the model, most of any silo: "
        f"{max(demo['loads_of_each_silo'])}. The server's memory with {many['silos']} silos is "
        f"{own:.2f} times that with {few['silos']}; with its Flower, {all_of_it:.2f} times.",
    ]


def chaos(result: dict[str, Any]) -> list[str]:
    """What federations under faults came to."""
    lines = ["| what happened | how it went | measured by |", "|---|---|---|"]
    for test in result["tests"]:
        told = ", ".join(
            f"{name.replace('_', ' ')}: {value:.4g}"
            for name, value in test.items()
            if name not in ("what", "command")
        )
        lines.append(f"| {test['what']} | {told} | `{test['command']}` |")
    return lines
