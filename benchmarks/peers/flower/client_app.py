"""A silo: the model loaded for every message, the arrays set, a loop, the arrays sent back."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from task import get_model, load_data, load_job
from task import train as train_fn

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    job = load_job()
    loader = load_data(int(context.node_config["partition-id"]), job)
    model = get_model(job)
    set_peft_model_state_dict(model, msg.content["arrays"].to_torch_state_dict())
    done = train_fn(model, loader, job)
    metrics = MetricRecord(
        {
            "train_loss": done.loss,
            "num-examples": len(loader.dataset),
            "steps": done.steps,
            "tokens": done.tokens,
        }
    )
    arrays = ArrayRecord(get_peft_model_state_dict(model))
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)
