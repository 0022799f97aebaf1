"""What a run has left, in the hands of a later one, of silos, and of PEFT: the same function."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hanse.data.example import Example
from hanse.deployment.server import serve
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.experiment.schema import build_algorithm
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.randomness import RoundContext
from hanse.serving.trained_adapter import find
from simulation.test_zoo import ZOO, run, words


@pytest.mark.parametrize("algorithm", [*ZOO, "fedavg"])
def test_the_last_checkpoint_says_what_the_adapter_does(
    algorithm: str, experiment_file: Path
) -> None:
    folder = run(experiment_file, *(words(algorithm) if algorithm in ZOO else ()))
    ids, machine = torch.arange(20, 40)[None], Resources()

    def said(base: bool) -> torch.Tensor:
        found = find(folder)
        learner = found.learner(machine, {})
        found.use(learner, base)
        with torch.no_grad():
            outputs = learner.forward(learner.batch([Example((*ids[0].tolist(),), (20,) * 20)]))
        machine.clear_adapters()
        return outputs

    whole, base = said(False), said(True)
    (folder / "adapter").rename(folder / "aside")
    torch.testing.assert_close(said(False), whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(said(True), base, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's, of SHiRA
@pytest.mark.parametrize("method", ["vera", "pvera", "randlora", "shira"])
def test_what_a_folder_has_beside_trained_tensors_is_taken_as_peft_takes_it(
    method: str, experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    """As of an adapter that others have made, with projections or places of their own."""
    own = f"adapter={{{method}: {{r: 4}}}}"
    folder = run(experiment_file, own, "train.learning_rate=0.05") / "adapter"
    file, live = folder / "adapter_model.safetensors", find(folder).learner(Resources(), {})
    tensors = load_file(file)
    for name in tensors.keys() - live.parameters().keys():
        whole = tensors[name].is_floating_point()
        tensors[name] = tensors[name] * 1.5 if whole else tensors[name].flip(-1).contiguous()
    save_file(tensors, file, {"format": "pt"})
    ids = torch.arange(20, 40)[None]
    again = load(experiment_file, [f"adapter={{from: {folder}}}", "seed=5"])
    if method == "shira":
        for opened in (lambda: find(folder).learner(Resources(), {}), lambda: simulate(again)):
            with pytest.raises(
                UserError, match="shira_indices that does not follow from its settings"
            ):
                opened()
        return
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        wanted = PeftModel.from_pretrained(base, str(folder)).eval()(ids).logits[0]
        for learner in (find(folder).learner(Resources(), {}), simulate(again).learner):
            learner.backbone.activate(learner.adapter)
            found = learner.backbone.logits(ids, torch.arange(20))
            assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("algorithm", [*ZOO, "fedavg"])
def test_silos_begin_with_the_adapter_that_the_server_goes_on_from(
    algorithm: str, experiment_file: Path, tmp_path: Path
) -> None:
    """Or are refused: they know the server's adapter by its settings and by what they are sent."""
    xs = ("adapter=lora_xs",) if algorithm == "fed_sb" else ()
    first = run(
        experiment_file, "train.learning_rate=0.05", *xs, f"output_dir={tmp_path / 'first'}"
    )
    own = [word for word in words(algorithm) if "adapter" not in word] if algorithm in ZOO else []
    made = simulate(load(experiment_file, [*own, f"adapter={{from: {first}}}"]))
    told = tmp_path / "told.yaml"
    try:
        told.write_text(serve._envelope(tmp_path, made).settings)
    except UserError:
        assert algorithm in {"ffa_lora", "fedsa_lora", "fedper"}
        return
    there = simulate(load(told))
    part, context = build_algorithm(made.experiment), RoundContext(made.experiment.seed, 1)
    try:
        state = part.init(Server(made.learner, 3, context))
    except UserError:
        assert algorithm == "fed_sb"  # what it leaves is LoRA
        return
    silo, profile = there.clients["silo-1"].learner, made.profiles[0]
    instruction = part.instruction(state, profile, context)
    assert instruction is not None
    silo.load(part.personalized(instruction, Client(profile, silo, {}, {}, context)))
    batch = made.learner.batch(made.learner.examples("test")[:4])
    with torch.no_grad():
        wanted = made.learner.forward(batch)
        torch.testing.assert_close(silo.forward(batch), wanted, atol=1e-4, rtol=0)
