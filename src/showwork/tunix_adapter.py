"""The only module that imports Tunix and Qwix: their classes, with the faults that we work around mended.

Written against google-tunix 0.1.7 and qwix 0.1.8; each workaround names what it mends and has a test in
tests/numerics/test_tunix.py.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import qwix
from flax import nnx
from tunix.models.gemma3 import model as gemma3
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout
from tunix.sft import peft_trainer

from showwork.config import Mesh
from showwork.errors import UserError
from showwork.models.specs import GemmaSpec

# Tunix and Orbax tell of every checkpoint and device on standard error, between the lines of the progress bar.
absl.logging.set_verbosity(absl.logging.ERROR)

# ---------------------------------------------------------------------------------------------- models


class _Config(gemma3.ModelConfig):
    """Tunix's is a mutable dataclass without a hash, and so no model that holds one can be a static argument."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in dataclasses.fields(self)))


class Gemma3(gemma3.Gemma3):
    """Tunix's Gemma 3, which can also stop before the logits.

    With return_hidden, the call gives the final hidden states [B, L, D] in place of the logits: the loss can
    then decode them in chunks, and no [B, L, V] array need exist. It is an option of __call__ and no method
    of its own because Qwix adds LoRA to __call__ alone.
    """

    def __call__(
        self, last_tokens, positions=None, cache=None, attention_mask=None, output_hidden_states=False, *,
        images=None, return_hidden=False,
    ):  # fmt: skip
        if not return_hidden:
            return super().__call__(last_tokens, positions, cache, attention_mask, output_hidden_states, images=images)
        new_cache = None if cache is None else {}
        x = self.embedder.encode(last_tokens)
        for i, layer in enumerate(self.layers):
            name = f"layer_{i}"
            layer_cache, x = layer(x, positions, cache[name] if cache else None, attention_mask)
            if cache is not None:
                new_cache[name] = layer_cache
        return self.final_norm(x), new_cache


def build_model(spec: GemmaSpec, *, vocabulary: int, dtype: str) -> nnx.Module:
    """A Gemma of this shape whose weights mean nothing yet: draw_weights or a checkpoint fills them."""
    config = _Config(
        num_layers=spec.layers,
        num_embed=vocabulary,
        embed_dim=spec.width,
        hidden_dim=spec.hidden,
        num_heads=spec.heads,
        head_dim=spec.head_dim,
        num_kv_heads=spec.kv_heads,
        sliding_window_size=spec.sliding_window,
        local_base_frequency=spec.local_rope_base,
        global_base_frequency=spec.global_rope_base,
        param_dtype=jnp.dtype(dtype),
    )
    model = Gemma3(config, rngs=nnx.Rngs(0))
    for index, layer in enumerate(model.layers):
        # Tunix decides by the layer's number (every sixth is global); the spec decides here.
        is_global = index in spec.global_layers
        layer.attn.attn_type = gemma3.AttentionType.GLOBAL if is_global else gemma3.AttentionType.LOCAL_SLIDING
        layer.attn.rope_base_frequency = spec.global_rope_base if is_global else spec.local_rope_base
    return model


def draw_weights(model: nnx.Module, *, key: jax.Array) -> None:
    """Fills a model with random weights to train from scratch, in place.

    Tunix starts the MLP's three kernels at zero, where their gradients stay zero for ever; and its embeddings
    (std 0.01) start far below the unit scale of the normalised branches. Here: normal with variance 1/fan_in,
    embeddings with variance 1/D, so that encoded tokens and logits both start at unit scale; norms at identity.
    The draw of a weight depends on the key and its own path alone.
    """

    def draw(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
        name = "/".join(str(getattr(part, "key", part)) for part in path)
        if "scale" in name:
            return jnp.zeros_like(value)
        if "input_embedding" in name:
            fan_in = value.shape[1]
        elif "attn_vec_einsum" in name:  # [N, H, D]
            fan_in = value.shape[0] * value.shape[1]
        else:  # kernels [in, out], projections [..., D, H]
            fan_in = value.shape[-2]
        weight_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        return (jax.random.normal(weight_key, value.shape, jnp.float32) * fan_in**-0.5).astype(value.dtype)

    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree_util.tree_map_with_path(draw, state))


# Query, key and value (fused where heads = kv heads), attention output, and the MLP's three.
LORA_MODULES = r".*(q_einsum|kv_einsum|attn_vec_einsum|gate_proj|up_proj|down_proj)"


def add_lora(model: nnx.Module, *, rank: int, alpha: float, key: jax.Array) -> nnx.Module:
    """A copy of the model with LoRA on every projection of every layer. Raises where any is missed."""
    provider = qwix.LoraProvider(module_path=LORA_MODULES, rank=rank, alpha=alpha)
    rngs = nnx.Rngs(params=key)
    adapted = qwix.apply_lora_to_model(model, provider, rngs=rngs, **model.get_model_input())
    per_layer = len({name.split(".", 2)[2] for name in lora_modules(adapted)})
    wanted = 5 if model.config.num_heads == model.config.num_kv_heads else 6
    if per_layer != wanted or len(lora_modules(adapted)) != wanted * model.config.num_layers:
        raise ValueError(f"LoRA reached {len(lora_modules(adapted))} modules, not {wanted} in each layer")
    return adapted


def lora_modules(model: nnx.Module) -> dict[str, tuple[nnx.Module, str]]:
    """Path of an adapted module, such as layers.0.attn.q_einsum, → (module, name of its weight)."""
    found = {}
    for path, module in nnx.iter_modules(model):
        for weight in ("w", "kernel"):
            if hasattr(module, f"{weight}_lora_a"):
                found[".".join(str(part) for part in path)] = (module, weight)
    return found


def merge_lora(model: nnx.Module, *, rank: int, alpha: float) -> dict[str, jax.Array]:
    """Path of each adapted weight → the weight with its adapter's product added."""
    merged = {}
    for path, (module, name) in lora_modules(model).items():
        weight = getattr(module, name).get_value()
        a, b = (getattr(module, f"{name}_lora_{part}").get_value() for part in "ab")
        if name == "kernel":
            product = a @ b
        else:
            _, a_axes, b_axes = module.w_lora_einsum_str.split("->")[0].split(",")
            w_axes = module.einsum_str.split("->")[0].split(",")[1]
            product = jnp.einsum(f"{a_axes},{b_axes}->{w_axes}", a, b)
        merged[f"{path}.{name}"] = weight + product * (alpha / rank)
    return merged


def make_mesh(config: Mesh) -> jax.sharding.Mesh:
    """The first fsdp * tp devices as Tunix's mesh."""
    wanted = config.fsdp * config.tp
    if wanted > len(jax.devices()):
        raise UserError(f"params.yaml: hardware.mesh asks for {wanted} devices; there are {len(jax.devices())}")
    return jax.sharding.Mesh(np.array(jax.devices()[:wanted]).reshape(config.fsdp, config.tp), ("fsdp", "tp"))


def place(model: nnx.Module, mesh: jax.sharding.Mesh) -> None:
    """Spreads the weights over the mesh as the model's own annotations say, in place.

    RLCluster would do it too, but on a copy: the caller would go on with a model that is never trained.
    """
    state = nnx.state(model)
    specs = nnx.get_partition_spec(state)
    nnx.update(model, jax.tree.map(lambda x, spec: jax.device_put(x, jax.NamedSharding(mesh, spec)), state, specs))


# ---------------------------------------------------------------------------------------------- trainers


def _checkpointing(every_steps: int) -> ocp.CheckpointManagerOptions:
    """By step count alone: Tunix's default saves by the clock, which no resumed run repeats, and Orbax's own
    also saves the first step, which can lie within the iterations on one rollout."""
    policy = ocp.checkpoint_managers.FixedIntervalPolicy(every_steps)
    return ocp.CheckpointManagerOptions(save_decision_policy=policy, max_to_keep=1)


class SupervisedTrainer(peft_trainer.PeftTrainer):
    """PeftTrainer that tells its caller of every step, with exact sums.

    loss_fn(model, **batch) returns (loss, aux). The loss of each micro-batch must already be divided by the
    count of the WHOLE step and multiplied by the number of micro-batches, because optax.MultiSteps averages
    micro-batches equally (see training.losses). on_step(step, auxes, grad_norms) and on_validation(step,
    auxes) get the micro-batches' sums.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        *,
        loss_fn: Callable[..., tuple[jax.Array, Any]],
        micro_batches: int,
        validate_every_steps: int,
        checkpoints: Path,
        checkpoint_every_steps: int,
        on_step: Callable[[int, list[Any]], None],
        on_validation: Callable[[int, list[Any]], None],
    ):
        config = peft_trainer.TrainingConfig(
            eval_every_n_steps=validate_every_steps,
            gradient_accumulation_steps=micro_batches,
            checkpoint_root_directory=str(checkpoints.absolute()),
            checkpointing_options=_checkpointing(checkpoint_every_steps),
        )
        super().__init__(model, optimizer, config)
        self.with_loss_fn(loss_fn, has_aux=True)
        self.with_gen_model_input_fn(lambda batch: batch)
        self._on_step, self._on_validation = on_step, on_validation
        self._train_aux: list[Any] = []
        self._eval_aux: list[Any] = []

    def _post_process_train_step(self, aux: Any) -> None:
        self._train_aux.append(aux)
        if len(self._train_aux) == self.config.gradient_accumulation_steps:
            # Before Tunix saves this step's checkpoint, so that the record is never behind the weights.
            self._on_step(self.train_steps + 1, jax.device_get(self._train_aux))
            self._train_aux = []

    def _post_process_eval_step(self, aux: Any) -> None:
        self._eval_aux.append(aux)

    def _run_eval(self, eval_ds: Iterable[Any], eval_step_fn: Callable[..., Any]) -> None:
        super()._run_eval(eval_ds, eval_step_fn)
        self._on_validation(self.train_steps, jax.device_get(self._eval_aux))
        self._eval_aux = []


class _Engine(base_rollout.BaseRollout):
    """Our rollout behind Tunix's interface: sample(model, prompts, step, first_row) does the work.

    Tunix's vanilla rollout reuses one random key for ever, and cuts EOS from completions, so that stopping is
    never trained. Here the step is part of the key and `generated` keeps what was sampled as it was sampled.
    """

    def __init__(self, *, sample: Any, rollout_actor: nnx.Module, tokenizer: Any, mesh: Any, rollout_config: Any):
        self._sample, self._model, self._tokenizer = sample, rollout_actor, tokenizer
        self.step = 0
        self.generated: list[Any] = []

    def generate(self, prompts: list[str], rollout_config: Any, **_: Any) -> base_rollout.RolloutOutput:
        first_row = sum(len(part.lengths) for part in self.generated)
        part = self._sample(self._model, prompts, self.step, first_row)
        self.generated.append(part)
        tokens = [row[:length] for row, length in zip(part.tokens, part.lengths, strict=True)]
        return base_rollout.RolloutOutput(
            text=[""] * len(tokens), logits=[], tokens=tokens,
            left_padded_prompt_tokens=part.prompt_tokens, logprobs=None,
        )  # fmt: skip

    def get_per_token_logps(self, prompt_tokens: jax.Array, completion_tokens: jax.Array) -> jax.Array:
        raise NotImplementedError("training.rl computes log-probabilities itself")

    def update_params(self, params: Any, filter_types: Any = None) -> None:
        nnx.update(self._model, params)

    def pad_id(self) -> int:
        return self._tokenizer.pad_id()

    def eos_id(self) -> int:
        return self._tokenizer.eos_id()

    def model(self) -> nnx.Module:
        return self._model


class _GroupLearner(grpo_learner.GRPOLearner):
    """GRPOLearner whose experience a function of ours makes, from what the engine sampled."""

    def __init__(self, cluster: rl_cluster.RLCluster, config: Any, *, experience: Any):
        super().__init__(cluster, config, reward_fns=lambda **_: None)
        self._experience = experience

    def _process_accumulated_batches(self, micro_batches: Any, micro_batch_sizes: list[int], mode: Any) -> list[Any]:
        # Tunix cuts the experience at the prompts' boundaries; packed rows have none. It also calls once more at the
        # end of a step, when nothing is left.
        if not micro_batches:
            return []
        merged = {name: np.concatenate([part[name] for part in micro_batches]) for name in ("prompts", "index")}
        rows = self._generate_and_compute_advantage(merged, mode)
        parts = len(micro_batch_sizes)
        cut = {name: np.split(value, parts) for name, value in rows.items() if value is not None}
        return [{name: cut[name][i] if name in cut else None for name in rows} for i in range(parts)]

    def _generate_and_compute_advantage(self, training_input: Any, mode: Any = rl_cluster.Mode.TRAIN) -> Any:
        engine, step = self.rl_cluster.rollout, self.rl_cluster.global_steps
        engine.step = step
        engine.generated.clear()
        rows = self._rollout_micro_batch_size * self.algo_config.num_generations
        self.rl_cluster.generate(prompts=list(training_input["prompts"]), mode=mode, micro_batch_size=rows)
        return self._experience(step, training_input["index"], list(engine.generated))

    def _compute_trajectory_ids(self, example: Any, steps: int) -> list[str]:
        return [""] * len(example["prompts"])  # Tunix keeps one string a row and step; nobody reads them.


def train_groups(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    *,
    tokenizer: Any,
    mesh: jax.sharding.Mesh,
    steps: int,
    prompts_per_step: int,
    generations: int,
    iterations: int,
    micro_batches: int,
    prompts_per_call: int,
    data: Callable[[int], Iterator[dict[str, np.ndarray]]],
    sample: Callable[[nnx.Module, Sequence[str], int, int], Any],
    experience: Callable[[int, np.ndarray, list[Any]], dict[str, np.ndarray]],
    loss_fn: Callable[..., tuple[jax.Array, Any]],
    checkpoints: Path,
    checkpoint_every_steps: int,
    on_start: Callable[[int], None],
    on_step: Callable[[int, list[Any]], None],
) -> None:
    """Trains a model in place by Tunix's RLCluster and GRPOLearner, from the newest checkpoint if there is one.

    data(step) yields batches {"prompts", "index"} of prompts_per_step from that step on; sample(model, prompts,
    step, first_row) completes prompts, each standing `generations` times in a row; experience(step, index, parts)
    turns what was sampled into the loss's arguments, arrays of any number of rows that micro_batches
    divides; on_start(step) and on_step(step, auxes)
    tell of the start, and of each step with the auxes of its micro-batches and iterations. step counts the
    rollouts that lie behind.
    """
    updates = steps * iterations
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    cluster = rl_cluster.RLCluster(
        actor=model,
        tokenizer=tokenizer,
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(roles, mesh),
            rollout_engine=functools.partial(_Engine, sample=sample),
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=optimizer,
                eval_every_n_steps=updates + 1,
                max_steps=updates,
                mini_batch_size=prompts_per_step,
                train_micro_batch_size=prompts_per_step // micro_batches,
                rollout_micro_batch_size=prompts_per_call,
                # With the rollout's size this decides after how many prompts Tunix asks for experience: all.
                compute_logps_micro_batch_size=prompts_per_step,
                checkpoint_root_directory=str(checkpoints.absolute()),
                # Only whole steps are saved: a resumed run could not repeat the rest of the iterations.
                checkpointing_options=_checkpointing(checkpoint_every_steps * iterations),
            ),
            rollout_config=base_rollout.RolloutConfig(temperature=1.0),
        ),
    )
    config = grpo_learner.GRPOConfig(num_generations=generations, num_iterations=iterations, beta=0.0)
    learner = _GroupLearner(cluster, config, experience=experience)
    actor = cluster.actor_trainer
    actor.with_loss_fn(loss_fn, has_aux=True).with_gen_model_input_fn(lambda batch: batch)
    actor.config.max_steps = None  # Tunix's own bar averages all losses so far at every step.

    done = actor.train_steps // iterations
    # The forced last checkpoint carries no step, and skipping batches counts iterations: data starts itself.
    cluster.global_steps = done
    learner._iter_steps = learner._last_iter_step
    auxes: list[Any] = []

    def after_micro_batch(aux: Any) -> None:
        auxes.append(aux)
        if len(auxes) == micro_batches * iterations:
            # Before Tunix saves this step's checkpoint, so that the record is never behind the weights.
            on_step(cluster.global_steps + 1, jax.device_get(auxes))
            auxes.clear()

    actor._post_process_train_step = after_micro_batch
    on_start(done)
    # Tunix's loop makes one more update before it looks whether any is left.
    if done < steps:
        learner.train(data(done))
