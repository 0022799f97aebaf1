"""The server: Flower's FedAvg over all silos; what they have done is added up and written down."""

import json
from collections.abc import Sequence

import torch
from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from peft import get_peft_model_state_dict
from task import FOLDER, get_model, load_job

app = ServerApp()


def total(replies: Sequence[RecordDict], _: str) -> MetricRecord:
    """Steps and tokens of all silos in a round; the strategy's own choice would be their means."""
    return MetricRecord(
        {name: sum(reply["metrics"][name] for reply in replies) for name in ("steps", "tokens")}
    )


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and save the adapter."""
    job = load_job()
    strategy = FedAvg(
        fraction_evaluate=0.0, min_available_nodes=job.silos, train_metrics_aggr_fn=total
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(get_peft_model_state_dict(get_model(job))),
        num_rounds=job.rounds,
    )
    torch.save(result.arrays.to_torch_state_dict(), FOLDER / "final_model.pt")
    done = [dict(own) for own in result.train_metrics_clientapp.values()]
    (FOLDER / "done.json").write_text(json.dumps(done))
