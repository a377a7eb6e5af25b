"""Run as a program on eight devices: LoRA on tiny Gemmas 2 and 3, one step of training, and the changes, as JSON."""

import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from showwork import config, devices
from showwork.models.specs import MODELS
from showwork.training import data, sft
from showwork.training.curves import Curve
from showwork.training.passes import Split
from showwork.training.run import Run
from showwork.tunix_adapter import gemma, lora, parameters

SETTINGS = {
    "optimizer": {
        "learning_rate": 0.01, "warmup_ratio": 0.0, "final_ratio": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    },
    "steps": 1, "rows_per_step": 8, "max_tokens": 16, "validate_every_steps": 1,
    "checkpoint_every_steps": 1,
}  # fmt: skip


def train_one_step(name: str, folder: Path) -> dict[str, int]:
    model = gemma.build_model(MODELS[name], vocabulary=64, dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(0))
    adapted = lora.add_lora(model, rank=2, alpha=2.0, key=jax.random.key(1))
    before = {path: np.array(value) for path, value in parameters.by_name(adapted).items()}
    examples = [data.Example(np.arange(2, 18, dtype=np.int32), np.ones(16, np.int32))] * 16
    sft.train(
        adapted, examples, [], config.Supervised.model_validate(SETTINGS),
        Run(
            name, 0, devices.make_mesh(config.Mesh(fsdp=4, tp=2)), Split(4, 16, 8), folder,
            Curve(folder / "plot.csv", folder / "kept.csv", sft.COLUMNS),
        ),
    )  # fmt: skip
    after = parameters.by_name(adapted)
    changed = {path for path, value in before.items() if (value != np.array(after[path])).any()}
    return {
        "modules": len(lora.lora_modules(adapted)),
        "changed_adapters": sum(path.endswith("_lora_b") for path in changed),
        "changed_weights": sum("_lora_" not in path for path in changed),
        "devices": len(after["layers.0.mlp.gate_proj.kernel"].sharding.device_set),
        "devices_of_an_adapter": len(after["layers.0.mlp.gate_proj.kernel_lora_b"].sharding.device_set),
        "shards": len({str(s.index) for s in after["layers.0.mlp.gate_proj.kernel"].addressable_shards}),
    }


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    devices._is_cpu = lambda mesh: False  # weights in parts, as on a TPU
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps({name: train_one_step(name, Path(scratch) / name) for name in sys.argv[1:]}))
