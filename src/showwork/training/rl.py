"""The group policy-gradient arms: sample a group, score it, credit it, update."""

import functools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from showwork import rollout, tunix_adapter
from showwork.config import Grpo
from showwork.errors import UserError
from showwork.files import read_jsonl, write_jsonl
from showwork.progress import Steps
from showwork.reading.answers import is_correct
from showwork.records import Completion, Problem
from showwork.rewards import REWARDS
from showwork.tokenizer import Tokenizer
from showwork.training import optimizer
from showwork.training.curves import Curve
from showwork.training.losses import CHUNK_ROWS, in_chunks, policy_loss, row_statistics, take_chunk, used_chunks

# Rows of prompt and completion are padded to a multiple of this many tokens: few shapes to compile, little waste.
ROW_BUCKET = 32


def columns(config: Grpo) -> tuple[str, ...]:
    """The curve's columns: rewards first, then what explains them."""
    return (
        "reward", *(f"reward_{name}" for name in config.rewards), "accuracy", "val_reward", "val_accuracy",
        "zero_variance", "completion_tokens", "truncated", "entropy", "kl", "clip_fraction", "learning_rate",
        "train_tokens", "sampled_tokens",
    )  # fmt: skip


def score(config: Grpo, completions: Sequence[Completion], problems: Sequence[Problem]) -> dict[str, np.ndarray]:
    """Each reward of the arm, unweighted, [N]. A reward outside its declared range is an error."""
    scores = {}
    for name in config.rewards:
        spec = REWARDS[name]
        values = np.asarray(spec.function(completions, problems), np.float64)
        if values.shape != (len(completions),) or not ((values >= spec.low) & (values <= spec.high)).all():
            raise ValueError(f"reward {name} left its range [{spec.low}, {spec.high}] or its length")
        scores[name] = values
    return scores


def group_advantages(rewards: np.ndarray, *, generations: int, kind: str) -> np.ndarray:
    """Advantages [N] of rewards [N], those of a group next to each other.

    grpo: (r - mean) / (std + 1e-6) with the n - 1 estimate of std (DeepSeekMath 4.1.2); drgrpo: r - mean
    (Dr. GRPO, which shows the division's bias); rloo: r - mean of the others (Ahmadian et al. 2024).
    """
    groups = rewards.reshape(-1, generations)
    # The mean of equal numbers can differ from them by rounding, and Adam would make a step of what is left over.
    is_constant = groups.max(axis=1, keepdims=True) == groups.min(axis=1, keepdims=True)
    centred = np.where(is_constant, 0.0, groups - groups.mean(axis=1, keepdims=True))
    if kind == "grpo":
        centred = centred / (groups.std(axis=1, ddof=1, keepdims=True) + 1e-6)
    elif kind == "rloo":
        centred = centred * generations / (generations - 1)
    return centred.reshape(-1)


def token_weights(mask: np.ndarray, *, aggregation: str, max_tokens: int, parts: int) -> np.ndarray:
    """What each completion token counts for, [N, L] from mask [N, L]; sums are over the whole step.

    token-mean: every token alike (DAPO); sequence-mean-token-mean: every completion alike (GRPO);
    sequence-mean-token-scale: every completion's sum over a constant length (Dr. GRPO). parts is the number of
    micro-batches, which optax.MultiSteps will divide by.
    """
    mask = mask.astype(np.float64)
    if aggregation == "token-mean":
        weights = mask / max(1.0, mask.sum())
    elif aggregation == "sequence-mean-token-mean":
        weights = mask / np.maximum(1.0, mask.sum(axis=1, keepdims=True)) / len(mask)
    else:
        weights = mask / max_tokens / len(mask)
    return (weights * parts).astype(np.float32)


def lay_out(generated: rollout.Generated, *, pad_id: int) -> dict[str, np.ndarray]:
    """Prompt and completion side by side, right-padded: tokens, positions, segments and mask, each [N, L]."""
    rows = []
    for prompt, tokens, length in zip(generated.prompt_tokens, generated.tokens, generated.lengths, strict=True):
        rows.append((prompt[prompt != pad_id], tokens[:length]))
    longest = max(len(prompt) + len(completion) for prompt, completion in rows)
    width = -(-longest // ROW_BUCKET) * ROW_BUCKET
    tokens = np.full((len(rows), width), pad_id, np.int32)
    segments, mask = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), np.int32)
    for i, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion)
        tokens[i, :end] = np.concatenate([prompt, completion])
        segments[i, :end] = 1
        mask[i, len(prompt) : end] = 1
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), tokens.shape) * segments
    return {"tokens": tokens, "positions": positions, "segments": segments, "mask": mask}


def pack(
    rows: dict[str, np.ndarray], groups: np.ndarray, *, width: int, count: int, parts: int
) -> dict[str, np.ndarray]:
    """Moves rows [N, L] of a prompt and its completion each into [count, width], several a row, first fit.

    Rows of one group, groups [N], have one prompt, which stands once in a row however many of its completions are
    there: a branch is the prompt's last token and a completion (losses.row_statistics). Every array moves alike;
    segments are numbered anew and branches added. Nothing else changes: each token still sees its own sequence alone
    (a test compares loss and gradient). Full rows are dealt out to `parts` equal runs of rows in turn, those that stay
    empty stand last in each. count = N rows are always enough.
    """
    lengths = rows["segments"].sum(axis=1)
    shared = lengths - rows["mask"].sum(axis=1) - 1
    packed = {name: np.zeros((count, width), value.dtype) for name, value in rows.items()}
    packed["branches"] = np.zeros((count, width), np.int32)
    used: list[int] = []  # positions, of each row
    held: list[dict[int, int]] = []  # of each row: its groups, and how many branches each has

    for i in sorted(range(len(lengths)), key=lambda i: (groups[i], -lengths[i], i)):
        group = groups[i]
        needed = [lengths[i] - (shared[i] if group in inside else 0) for inside in held]
        fitting = [n for n, more in enumerate(needed) if used[n] + more <= width]
        # Where its prompt stands already, if anywhere.
        number = min(fitting, key=lambda n: (group not in held[n], n), default=len(used))
        if number == len(used):
            used.append(0)
            held.append({})
        row = number % parts * (count // parts) + number // parts
        pieces = [(shared[i], lengths[i])]
        if group not in held[number]:
            held[number][group] = 0
            pieces.insert(0, (0, shared[i]))
        held[number][group] += 1
        for first, last in pieces:
            to = slice(used[number], used[number] + last - first)
            for name, value in rows.items():
                packed[name][row, to] = value[i, first:last]
            packed["segments"][row, to] = list(held[number]).index(group) + 1
            packed["branches"][row, to] = held[number][group] if last == lengths[i] else 0
            used[number] = to.stop
    return packed


@functools.partial(jax.jit, static_argnames=("graphdef", "temperature", "devices"))
def _logps(graphdef: Any, state: Any, rows: Any, *, temperature: float, devices: int) -> jax.Array:
    tokens, _, segments, _ = rows
    shape = tokens.shape

    def add(number: jax.Array, logps: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, state)
        part, _ = row_statistics(model, *take_chunk(rows, number, devices=devices), temperature=temperature)
        part = jnp.pad(part, ((0, 0), (1, 0))).reshape(devices, -1, shape[1])
        return jax.lax.dynamic_update_slice_in_dim(logps, part, number * CHUNK_ROWS, axis=1)

    empty = jnp.zeros((devices, shape[0] // devices, shape[1]))
    return jax.lax.fori_loop(0, used_chunks(segments, devices=devices), add, empty).reshape(shape)


def completion_logps(
    model: nnx.Module, rows: dict[str, np.ndarray], *, mesh: jax.sharding.Mesh, temperature: float
) -> np.ndarray:
    """Log-probability of each token given those before it, [N, L]; 0 for the first of a row, and in empty rows.

    What stands at the first token of a segment or branch means nothing. Rows are laid out as losses.in_chunks wants
    them, with branches or whole.
    """
    graphdef, state = nnx.split(model)
    inputs = tuple(rows.get(name) for name in ("tokens", "positions", "segments", "branches"))
    inputs = tunix_adapter.spread(inputs, mesh)
    return np.asarray(_logps(graphdef, state, inputs, temperature=temperature, devices=mesh.shape["fsdp"]))


def train(
    model: nnx.Module,
    reference: nnx.Module | None,
    problems: Sequence[Problem],
    validation: Sequence[Problem],
    config: Grpo,
    *,
    tokenizer: Tokenizer,
    system: str,
    stop_ids: Sequence[int],
    mesh: jax.sharding.Mesh,
    seed: int,
    checkpoints: Path,
    curve: Curve,
    watched: Path,
    name: str,
) -> dict[str, Any]:
    """Trains the policy in place, from the newest checkpoint if there is one; returns the stage's metrics.

    reference stays as it is; it is asked for where beta > 0. watched is a folder that collects what the
    policy says to a few validation problems at the start, the middle and the end.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    training_key, validation_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
    sampling = rollout.Sampling(
        temperature=config.rollout.temperature, top_k=config.rollout.top_k, top_p=config.rollout.top_p
    )
    parts = config.micro_batches
    rates = optimizer.learning_rates(config.optimizer, steps=config.steps * config.iterations)
    pad_id = tokenizer.pad_id()

    encoded = {p.id: tokenizer.prompt_ids(p.question, system=system) for p in (*problems, *validation)}
    fitting = [p for p in problems if len(encoded[p.id]) <= config.rollout.max_prompt_tokens]
    if not fitting:
        raise UserError(f"{name}.rollout.max_prompt_tokens {config.rollout.max_prompt_tokens}: no prompt is that short")
    widest = max(len(encoded[p.id]) for p in (*fitting, *validation))
    width = -(-(widest + config.rollout.max_completion_tokens) // ROW_BUCKET) * ROW_BUCKET
    devices = mesh.shape["fsdp"]
    multiple = parts * devices * CHUNK_ROWS
    packed_rows = -(-config.prompts_per_step * config.generations // multiple) * multiple
    prompts_per_call = config.rollout.rows_per_call // config.generations
    record: dict[str, Any] = {}

    def sample_prompts(actor: nnx.Module, ids: list[list[int]], *, key: jax.Array, first_row: int) -> rollout.Generated:
        # One width for the whole run: one compiled program.
        prompts = rollout.left_pad(ids, pad_id=pad_id, width=widest)
        return rollout.generate(
            actor, prompts, key=key, sampling=sampling, generations=config.generations, pad_id=pad_id,
            max_tokens=config.rollout.max_completion_tokens, stop_ids=stop_ids, first_row=first_row,
        )  # fmt: skip

    def sample(actor: nnx.Module, prompts: Sequence[str], step: int, first_row: int) -> rollout.Generated:
        ids = [encoded[str(prompt)] for prompt in prompts[:: config.generations]]
        return sample_prompts(actor, ids, key=jax.random.fold_in(training_key, step), first_row=first_row)

    def total(scores: dict[str, np.ndarray]) -> np.ndarray:
        return sum(weight * scores[reward] for reward, weight in config.rewards.items())

    def experience(step: int, index: np.ndarray, generated: list[rollout.Generated]) -> dict[str, np.ndarray]:
        asked = [fitting[i] for i in index]
        completions = [c for part in generated for c in part.completions(tokenizer, stop_ids)]
        scores = score(config, completions, asked)
        rewards = total(scores)
        whole = rollout.Generated(
            *(np.concatenate([getattr(part, field) for part in generated])
              for field in ("prompt_tokens", "tokens", "lengths", "is_truncated"))
        )  # fmt: skip
        rows = lay_out(whole, pad_id=pad_id)
        advantages = group_advantages(rewards, generations=config.generations, kind=config.advantage)
        spread = rewards.reshape(-1, config.generations)
        sampled = int(whole.lengths.sum())
        record.update(
            {f"reward_{reward}": float(values.mean()) for reward, values in scores.items()},
            reward=float(rewards.mean()),
            accuracy=float(np.mean([is_correct(c.text, p.answer) for c, p in zip(completions, asked, strict=True)])),
            zero_variance=float(np.mean(spread.max(axis=1) == spread.min(axis=1))),
            completion_tokens=float(whole.lengths.mean()),
            truncated=float(whole.is_truncated.mean()),
            sampled_tokens=int(curve.last("sampled_tokens")) + sampled,
            train_tokens=int(curve.last("train_tokens")) + sampled * config.iterations,
        )
        mask = rows["mask"]
        rows["weights"] = token_weights(
            mask, aggregation=config.loss_aggregation, max_tokens=config.rollout.max_completion_tokens, parts=parts
        )
        rows["advantages"] = (advantages[:, None] * mask).astype(np.float32)
        groups = np.arange(len(mask)) // config.generations
        if not config.beta:
            # Without a KL term a group without variance has no gradient at all.
            groups = groups[advantages != 0]
            rows = {name: value[advantages != 0] for name, value in rows.items()}
        rows = pack(rows, groups, width=width, count=packed_rows, parts=parts * devices)
        del rows["mask"]  # where the weights are not 0
        logps = functools.partial(completion_logps, rows=rows, mesh=mesh, temperature=sampling.temperature)
        old_logps = logps(model) if config.iterations > 1 else None
        reference_logps = logps(reference) if config.beta else None
        return {**rows, "old_logps": old_logps, "reference_logps": reference_logps}

    def validate(step: int) -> None:
        watched_steps = (0, config.steps // 2, config.steps)
        if not validation or (step % config.validate_every_steps and step not in watched_steps):
            return
        asked = [p for p in validation for _ in range(config.generations)]
        # In calls as large as those of training, which share its compiled program; the last is filled up with BOS.
        ids = [encoded[p.id] for p in validation]
        ids += [[tokenizer.bos_id()]] * (-len(ids) % prompts_per_call)
        completions = []
        for start in range(0, len(ids), prompts_per_call):
            generated = sample_prompts(
                model, ids[start : start + prompts_per_call], key=validation_key, first_row=start * config.generations
            )
            completions += generated.completions(tokenizer, stop_ids)
        completions = completions[: len(asked)]
        scores = score(config, completions, asked)
        correct = [is_correct(c.text, p.answer) for c, p in zip(completions, asked, strict=True)]
        curve.add(step, {"val_reward": float(total(scores).mean()), "val_accuracy": float(np.mean(correct))})
        if step in watched_steps:
            chosen = range(0, config.watched_problems * config.generations, config.generations)
            write_jsonl(
                watched / f"{step:06d}.jsonl",
                (
                    {"step": step, "id": asked[i].id, "gold": asked[i].answer, "completion": completions[i].text}
                    | {"correct": correct[i]}
                    | {reward: float(values[i]) for reward, values in scores.items()}
                    for i in chosen
                ),
            )

    def on_start(step: int) -> None:
        curve.start(step=step)
        bar.update(step)
        validate(step)

    def on_step(step: int, auxes: list[dict[str, Any]]) -> None:
        tokens = sum(float(aux["tokens"]) for aux in auxes)
        mean = {name: sum(float(aux[name]) for aux in auxes) / max(1.0, tokens) for name in auxes[0]}
        curve.add(step, {
            **record, "entropy": mean["entropy"], "kl": mean.get("kl"), "clip_fraction": mean["clipped"],
            "learning_rate": float(rates(step * config.iterations)),
        })  # fmt: skip
        bar.update(step, f"reward {record['reward']:.3f}  accuracy {record['accuracy']:.3f}")
        validate(step)

    def batches(step: int) -> Iterator[dict[str, np.ndarray]]:
        for index in problem_order(len(fitting), config.prompts_per_step, seed=seed, first=step):
            yield {"prompts": np.array([fitting[i].id for i in index]), "index": index}

    # NNX resolves arguments by position: no functools.partial with keywords here.
    def loss(
        model: nnx.Module, tokens: jax.Array, positions: jax.Array, segments: jax.Array, weights: jax.Array,
        advantages: jax.Array, old_logps: jax.Array | None, reference_logps: jax.Array | None, branches: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:  # fmt: skip
        return policy_loss(
            model, tokens, positions, segments, weights, advantages, old_logps, reference_logps, branches,
            beta=config.beta, epsilon_low=config.epsilon_low, epsilon_high=config.epsilon_high,
            temperature=sampling.temperature,
        )  # fmt: skip

    tunix_adapter.place(model, mesh)
    if reference is not None:
        tunix_adapter.place(reference, mesh)
    with Steps(name, config.steps) as bar:
        tunix_adapter.train_groups(
            model, optimizer.build(config.optimizer, steps=config.steps * config.iterations),
            tokenizer=tokenizer, mesh=mesh, steps=config.steps, prompts_per_step=config.prompts_per_step,
            generations=config.generations, iterations=config.iterations, micro_batches=parts,
            prompts_per_call=prompts_per_call, data=batches, sample=sample,
            experience=experience, checkpoints=checkpoints,
            loss_fn=in_chunks(loss, devices=devices, wrt=nnx.LoRAParam if config.adapter else nnx.Param),
            checkpoint_every_steps=config.checkpoint_every_steps, on_start=on_start, on_step=on_step,
        )  # fmt: skip
    return {
        "reward": curve.last("reward"),
        "val_reward": curve.last("val_reward"),
        "optimizer_steps": config.steps * config.iterations,
        "train_tokens": int(curve.last("train_tokens")),
        "sampled_tokens": int(curve.last("sampled_tokens")),
        "prompts_too_long": len(problems) - len(fitting),
    }


def problem_order(count: int, batch: int, *, seed: int, first: int) -> Iterator[np.ndarray]:
    """Batches of problem numbers without end: each epoch is a permutation that (seed, epoch) alone decides."""
    position, epoch, order = first * batch, -1, np.array([], int)
    while True:
        index = np.empty(batch, int)
        for i in range(batch):
            if position // count != epoch:
                epoch = position // count
                order = np.random.default_rng([seed, epoch]).permutation(count)
            index[i] = order[position % count]
            position += 1
        yield index


def collect_watched(folder: Path) -> list[dict[str, Any]]:
    """What the policy said to the watched problems, in the order of the steps."""
    return [row for path in sorted(folder.glob("*.jsonl")) for row in read_jsonl(path)]
