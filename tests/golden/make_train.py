"""Makes tests/golden/train: what training steps on the models of parity/ must compute.

    python make_train.py [OUTPUT_DIRECTORY]

See README.md for the format. Run make_parity.py first. Numbers are those of float64 (train_reference.double_precision);
the same in float32 shows how far rounding alone moves them.
"""

import json
import math
import os
import sys
import zlib
from dataclasses import dataclass

import gguf
import numpy as np
import PIL
import torch
from PIL import Image
from transformers import get_cosine_schedule_with_warmup

from make_parity import (MIN_CUT_MARGIN, N_VOCAB, PINPOINTS, number, qwen2_vocabulary, reserved_tokens, text_model,
                         vision_model, write_atomically)
from reference import IMAGE_TOKEN, Llava, Policy
from train_reference import (IGNORE, Sample, add_lora, batch_loss, compact, double_precision, parameters, sample_pass)

HERE = os.path.dirname(os.path.abspath(__file__))
PARITY = os.path.join(HERE, "parity")
# A gradient smaller than this share of the whole gradient's norm is zero but for rounding.
ZERO_SHARE = 1e-9
# float32 must reproduce the float64 goldens this well, or the case would test rounding.
MAX_GRADIENT_NOISE = 2e-5
MAX_WEIGHT_NOISE = 1e-4


# ---- models ----------------------------------------------------------------------------------------------------


@dataclass
class Pair:
    model: str
    mmproj: str
    aspect: str
    arch: str
    single: Llava  # float32
    double: Llava
    legacy_names: bool


def make_pairs():
    def text(name, **options):
        return text_model(name, options.pop("seed", 1), **options)

    def vision(name, llm, size, act, newline=None):
        tower, projector = vision_model(name, 1, size, act, llm.config.hidden_size)
        return Llava(llm, tower, projector, newline, PINPOINTS if newline is not None else None)

    generator = np.random.Generator(np.random.PCG64([1, zlib.crc32(b"image_newline")]))
    newline = torch.from_numpy((0.5 * generator.standard_normal(64)).astype(np.float32))
    llavas = {
        "mha": vision("mha", text("mha"), 56, "quick_gelu"),
        "gqa": vision("gqa", text("gqa", kv_heads=2, tied=True, theta=500000.0), 84, "gelu"),
        "qwen2": vision("qwen2", text("qwen2", seed=4, arch="qwen2", kv_heads=2, tied=True, theta=1000000.0, eps=1e-6), 84,
                        "quick_gelu"),
        "next": vision("next", text("mha"), 56, "quick_gelu", newline),
    }
    pairs = {}
    for name, llava in llavas.items():
        model = "mha.gguf" if name == "next" else name + ".gguf"
        aspect, arch = "anyres" if name == "next" else "pad", "qwen2" if name == "qwen2" else "llama"
        pair = Pair(model, f"{name}-mmproj.gguf", aspect, arch, llava, double_precision(llava), name == "qwen2")
        check_files(pair)
        pairs[name] = pair
    return pairs


def check_files(pair):
    """The weights here are those of the files, under the same names and in the same order of elements."""
    stored = {}
    for file in (pair.model, pair.mmproj):
        for tensor in gguf.GGUFReader(os.path.join(PARITY, file)).tensors:
            stored[tensor.name] = np.asarray(tensor.data).reshape(-1)
    entries = parameters(pair.single, pair.legacy_names)
    for entry in entries:
        values = entry.to_gguf(entry.tensor.detach()).numpy()
        assert np.array_equal(values, stored[entry.name]), entry.name
        back = entry.from_gguf(torch.from_numpy(values.copy()))
        assert torch.equal(back, entry.tensor), entry.name
    unused = stored.keys() - {entry.name for entry in entries}
    assert all(name.startswith("v.blk.2.") for name in unused), unused


# ---- samples ---------------------------------------------------------------------------------------------------

pictures = {}


def picture(name):
    if name not in pictures:
        pictures[name] = Image.open(os.path.join(PARITY, name)).convert("RGB")
    return pictures[name]


def make_sample(pair, pattern, images, generator):
    """A pattern: "b" the begin token, "i" an image, "7" that many tokens to read, "+7" that many to learn."""
    allowed = [token for token in range(N_VOCAB) if token not in reserved_tokens(pair.arch)]
    begin = 1 if pair.arch == "llama" else qwen2_vocabulary()[0].index(("<|endoftext|>", gguf.TokenType.CONTROL))
    tokens, labels = [], []
    for part in pattern.split():
        new = {"b": [begin], "i": [IMAGE_TOKEN]}.get(part)
        if new is None:
            new = [int(token) for token in generator.choice(allowed, int(part))]
        tokens += new
        labels += new if part.startswith("+") else [IGNORE] * len(new)
    assert tokens.count(IMAGE_TOKEN) == len(images)
    tiles = []
    for image in images:
        tiles.append((*pair.single.pixels(picture(image), pair.aspect), picture(image).size))
    return Sample(tokens, labels, tiles)


def make_batch(pair, patterns, generator):
    return [make_sample(pair, pattern, images, generator) for pattern, images in patterns]


def describe_sample(sample, images):
    return {"tokens": sample.tokens, "labels": sample.labels, "images": images}


def describe_pass(one):
    return {
        "loss_sum": number(float(one.loss.detach())),
        "n_predicted": one.n_predicted,
        "image_tokens": one.image_tokens,
        "rows_per_stage": one.rows_per_stage,
        "ends": one.ends,
        "kept": one.kept,
        "scores": [[[number(x) for x in drop] for drop in image] for image in one.scores],
    }


# ---- gradients -------------------------------------------------------------------------------------------------


def step(llava, policy, batches, entries, backward=True):
    """Loss and gradients of batches that one optimiser step gathers. Returns the loss and the passes of each."""
    for entry in entries:
        entry.tensor.grad = None
    with torch.set_grad_enabled(backward):
        passes = [[sample_pass(llava, policy, sample) for sample in batch] for batch in batches]
    n_predicted = sum(one.n_predicted for batch in passes for one in batch)
    loss = sum(batch_loss(batch, n_predicted) for batch in passes)
    if backward:
        loss.backward()
        for entry in entries:
            if entry.tensor.grad is None:  # no image in the batch: the published code shows the tower a dummy instead
                entry.tensor.grad = torch.zeros_like(entry.tensor)
    return float(loss.detach()), passes


def gradient_values(entries):
    return [entry.to_gguf(entry.tensor.grad).double().numpy().copy() for entry in entries]


def weight_values(entries):
    return [entry.to_gguf(entry.tensor.detach()).double().numpy().copy() for entry in entries]


def whole_norm(values):
    return math.sqrt(sum(float(one @ one) for one in values))


def noise(single, double, floor):
    """The largest ‖float32 - float64‖ / ‖float64‖ of any parameter whose norm exceeds floor."""
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(single, double) if np.linalg.norm(b) > floor)


def describe_values(entries, values, floor):
    return [[entry.name, len(one), number(float(np.linalg.norm(one))), "zero" if np.linalg.norm(one) <= floor else ""]
            for entry, one in zip(entries, values)]


def write_compact(directory, file, values):
    data = np.concatenate([compact(one) for one in values]).astype("<f4")
    write_atomically(os.path.join(directory, file), data.tofile)
    return file


def kept_of(passes):
    return [[one.kept for one in batch] for batch in passes]


def margin_of(passes):
    return min((margin for batch in passes for one in batch for margin in one.margins), default=math.inf)


def make_case(directory, name, pair, patterns, layers=(), ratios=(), positions="compact"):
    policy = Policy(list(layers), list(ratios), positions)
    double = parameters(pair.double, pair.legacy_names)
    single = parameters(pair.single, pair.legacy_names)
    for seed in range(1000):
        generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
        batch = make_batch(pair, patterns, generator)
        _, passes = step(pair.double, policy, [batch], double, backward=False)
        if margin_of(passes) > MIN_CUT_MARGIN:
            break
    else:
        raise RuntimeError(f"{name}: no suitable samples")

    loss, passes = step(pair.double, policy, [batch], double)
    values = gradient_values(double)
    single_loss, single_passes = step(pair.single, policy, [batch], single)
    single_values = gradient_values(single)
    norm = whole_norm(values)
    floor = ZERO_SHARE * norm
    gradient_noise = noise(single_values, values, floor)
    assert kept_of(passes) == kept_of(single_passes), name
    assert gradient_noise < MAX_GRADIENT_NOISE, f"{name}: {gradient_noise}"
    zeros = [a for a, b in zip(single_values, values) if np.linalg.norm(b) <= floor]
    assert all(np.linalg.norm(one) < 1e-6 * norm for one in zeros)
    print(f"{name:32} loss {loss:.4f}  gradient {norm:8.3f}  float32: loss {abs(single_loss / loss - 1):.1e}, "
          f"gradients {gradient_noise:.1e}  cut margin {margin_of(passes):.1e}  seed {seed}", flush=True)
    return {
        "name": name,
        "model": pair.model,
        "mmproj": pair.mmproj,
        "aspect": pair.aspect,
        "layer_list": policy.layer_list,
        "image_token_ratio_list": policy.image_token_ratio_list,
        "positions": policy.positions,
        "samples": [describe_sample(sample, images) for sample, (_, images) in zip(batch, patterns)],
        "expect": {
            "loss": number(loss),
            "n_predicted": sum(one.n_predicted for one in passes[0]),
            "samples": [describe_pass(one) for one in passes[0]],
            "gradient_norm": number(norm),
            "float32_noise": number(gradient_noise),
            "gradients": write_compact(directory, name + ".gradients.f32", values),
            "parameters": describe_values(double, values, floor),
        },
    }


# ---- optimiser steps -------------------------------------------------------------------------------------------


@dataclass
class Recipe:
    n_steps: int
    accumulation: int
    lr: dict  # of each group
    weight_decay: float = 0.1
    betas: tuple = (0.9, 0.999)
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    warmup_steps: int = 2
    lora_r: int = 0
    lora_alpha: float = 0.0


class Unclear(Exception):
    """A ranking too close to call."""


def train(llava, policy, batches, recipe, legacy_names):
    """Everything one run gives. The weights of llava change."""
    entries = parameters(llava, legacy_names)
    adapted = []
    if recipe.lora_r:
        adapted, entries = add_lora(llava, entries, recipe.lora_r, recipe.lora_alpha)
    groups = []
    for group in ("decoder", "projector", "vision"):
        for decays in (True, False):
            tensors = [entry.tensor for entry in entries if entry.group == group and entry.decays == decays]
            if tensors:
                groups.append({"params": tensors, "lr": recipe.lr[group], "group": group,
                               "weight_decay": recipe.weight_decay if decays else 0.0})
    optimiser = torch.optim.AdamW(groups, betas=recipe.betas, eps=recipe.eps)
    schedule = get_cosine_schedule_with_warmup(optimiser, recipe.warmup_steps, recipe.n_steps)
    initial = weight_values(entries)
    steps, kept, first_gradients = [], [], None
    for index in range(recipe.n_steps):
        use = [(index * recipe.accumulation + one) % len(batches) for one in range(recipe.accumulation)]
        loss, passes = step(llava, policy, [batches[one] for one in use], entries)
        if margin_of(passes) <= MIN_CUT_MARGIN:
            raise Unclear
        if first_gradients is None:
            first_gradients = gradient_values(entries)
        kept.append(kept_of(passes))
        norm = torch.nn.utils.clip_grad_norm_([entry.tensor for entry in entries], recipe.max_grad_norm)
        steps.append({
            "batches": use, "loss": number(loss), "gradient_norm": number(float(norm)),
            "lr": {group["group"]: number(group["lr"]) for group in optimiser.param_groups},
            "cut_margin": number(min(margin_of(passes), 1.0)),
        })
        optimiser.step()
        schedule.step()
    final = weight_values(entries)
    change = [b - a for a, b in zip(initial, final)]
    merged = [(entry, entry.to_gguf(lora.merged().detach()).double().numpy().copy()) for entry, lora in adapted]
    return entries, steps, kept, first_gradients, final, change, merged


def make_steps(directory, name, make_pair, patterns, recipe, layers=(), ratios=()):
    policy = Policy(list(layers), list(ratios))
    for seed in range(2000):
        pair = make_pair()
        generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
        batches = [make_batch(pair, batch, generator) for batch in patterns]
        try:
            results = train(pair.double, policy, batches, recipe, pair.legacy_names)
            break
        except Unclear:
            continue
    else:
        raise RuntimeError(f"{name}: no suitable samples")
    entries, steps, kept, gradients, final, change, merged = results
    _, single_steps, single_kept, _, single_final, single_change, single_merged = train(
        pair.single, policy, batches, recipe, pair.legacy_names)
    assert kept == single_kept, name
    norm = whole_norm(gradients)
    floor = ZERO_SHARE * norm
    is_zero = [np.linalg.norm(one) <= floor for one in gradients]

    def moved(values):
        return [one for one, zero in zip(values, is_zero) if not zero]

    loss_noise = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(single_steps, steps))
    weight_noise = noise(moved(single_final), moved(final), 0.0)
    change_noise = noise(moved(single_change), moved(change), 0.0)
    assert weight_noise < MAX_WEIGHT_NOISE, f"{name}: {weight_noise}"
    print(f"{name:32} loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}  float32: losses {loss_noise:.1e}, weights "
          f"{weight_noise:.1e}, their change {change_noise:.1e}  cut margin {min(one['cut_margin'] for one in steps):.1e}  "
          f"seed {seed}", flush=True)

    listed = describe_values(entries, gradients, floor)
    expect = {
        "steps": steps,
        "float32_noise": {"losses": number(loss_noise), "weights": number(weight_noise), "change": number(change_noise)},
        "parameters": [[*one, entry.group, "decay" if entry.decays else ""] for one, entry in zip(listed, entries)],
        "gradients": write_compact(directory, name + ".gradients.f32", gradients),
        "weights": write_compact(directory, name + ".weights.f32", final),
        "change": write_compact(directory, name + ".change.f32", change),
    }
    if merged:
        single_values = [values for _, values in single_merged]
        expect["float32_noise"]["merged"] = number(noise(single_values, [values for _, values in merged], 0.0))
        expect["merged"] = write_compact(directory, name + ".merged.f32", [values for _, values in merged])
        expect["merged_parameters"] = [[entry.name, len(values), number(float(np.linalg.norm(values)))]
                                       for entry, values in merged]
    return {
        "name": name,
        "model": pair.model,
        "mmproj": pair.mmproj,
        "aspect": pair.aspect,
        "layer_list": policy.layer_list,
        "image_token_ratio_list": policy.image_token_ratio_list,
        "positions": policy.positions,
        "lora_r": recipe.lora_r,
        "lora_alpha": recipe.lora_alpha,
        "n_steps": recipe.n_steps,
        "gradient_accumulation_steps": recipe.accumulation,
        "learning_rate": recipe.lr["decoder"],
        "mm_projector_lr": recipe.lr["projector"],
        "mm_vision_tower_lr": recipe.lr["vision"],
        "weight_decay": recipe.weight_decay,
        "adam_beta1": recipe.betas[0],
        "adam_beta2": recipe.betas[1],
        "adam_epsilon": recipe.eps,
        "max_grad_norm": recipe.max_grad_norm,
        "warmup_steps": recipe.warmup_steps,
        "batches": [[describe_sample(sample, images) for sample, (_, images) in zip(batch, kinds)]
                    for batch, kinds in zip(batches, patterns)],
        "expect": expect,
    }


# ---- main ------------------------------------------------------------------------------------------------------

PYRAMID = ([2, 4], [0.5, 0.25])


def main(directory):
    if tuple(int(part) for part in PIL.__version__.split(".")[:2]) >= (12, 2):
        sys.exit("make_train.py needs Pillow before 12.2, as make_parity.py does")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.makedirs(directory, exist_ok=True)
    pairs = make_pairs()

    cases = []

    def add(name, key, patterns, layers=(), ratios=(), positions="compact"):
        cases.append(make_case(directory, f"{key}_{name}", pairs[key], patterns, layers, ratios, positions))

    for key in ("mha", "gqa", "qwen2"):
        b = "" if key == "qwen2" else "b "
        mixed = [
            (b + "5 i 7 +6", ["wide.png"]),  # one turn
            (b + "9 +5", []),  # text only
            (b + "4 i 6 +3 5 +4 3 +2", ["tall.png"]),  # three ends of instructions
            (b + "i +8", ["square.png"]),  # the plain template: the answer right behind the image
        ]
        add("dense", key, mixed)
        add("drop", key, mixed, *PYRAMID)
        add("original", key, mixed, *PYRAMID, "original")
        add("withdrawn", key, mixed, [2, 4], [0.5, 0.0])
        two_images = [
            (b + "3 i 4 i 6 +5", ["wide.png", "tall.png"]),  # both in one instruction
            (b + "2 i 4 +3 5 i 2 +4", ["square.png", "odd.png"]),  # the first end does not see the second image
            (b + "6 i 3 +2", ["tile.png"]),
        ]
        add("two_images", key, two_images, *PYRAMID)
    add("withdrawn_at_once", "mha", [("b i +5", ["odd.png"]), ("b 4 i 5 +3 2 +2", ["large.png"]), ("b 6 +4", [])], [3], [0.0])
    add("four_stages", "mha", [("b 5 i 7 +6", ["large.png"]), ("b 4 i 6 +3 5 +4", ["tower.png"]), ("b 3 +5 4 +2", [])],
        [1, 3, 5], [0.7, 0.4, 0.1])
    # A sample with nothing to learn stays whole and adds nothing; so does an image behind the last answer to the ranking.
    add("no_labels", "mha", [("b 5 i 9", ["wide.png"]), ("b 3 i 4 +5", ["tall.png"]), ("b 7", [])], *PYRAMID)
    add("unseen_image", "mha", [("b 4 +3 2 i 3", ["wide.png"]), ("b 4 i 5 +3", ["tall.png"])], *PYRAMID)
    add("text_only", "mha", [("b 8 +5 3 +2", []), ("b 5 +7", [])], *PYRAMID)
    add("one_sample", "mha", [("b 6 i 8 +7", ["panorama.png"])], *PYRAMID)
    # No begin token and the image withdrawn: nothing is left to predict the first answer token, which counts for nothing then.
    add("nothing_before_answer", "qwen2", [("i +6", ["wide.png"]), ("3 i 4 +5", ["tall.png"])], [2, 4], [0.5, 0.0])

    anyres = [
        ("b 5 i 7 +6", ["wide.png"]),
        ("b 9 +5", []),
        ("b 4 i 6 +3 5 +4", ["tower.png"]),
        ("b i +8", ["panorama.png"]),
    ]
    add("dense", "next", anyres)
    add("drop", "next", anyres, [1, 3, 5], [0.5, 0.25, 0.125])
    add("original", "next", anyres, *PYRAMID, "original")
    add("two_images", "next", [("b 3 i 4 i 6 +5", ["tile.png", "odd.png"]), ("b 2 i 4 +3 5 i 2 +4", ["tall.png", "large.png"])],
        *PYRAMID)

    batches = [
        [("b 5 i 7 +6", ["wide.png"]), ("b 9 +5", [])],
        [("b 4 i 6 +3 5 +4", ["tall.png"]), ("b i +8", ["square.png"])],
        [("b 2 i 3 +9", ["odd.png"]), ("b 6 i 4 +2", ["large.png"])],
        [("b 3 +4 2 +3", []), ("b 5 i 8 +7", ["tower.png"])],
    ]
    rates = {"decoder": 1e-3, "projector": 2e-3, "vision": 2e-4}
    steps = [
        make_steps(directory, "mha_drop_20_steps", lambda: make_pairs()["mha"], batches, Recipe(20, 2, rates), *PYRAMID),
        make_steps(directory, "gqa_dense_20_steps", lambda: make_pairs()["gqa"], batches, Recipe(20, 2, rates)),
        make_steps(directory, "mha_lora_5_steps", lambda: make_pairs()["mha"], batches,
                   Recipe(5, 2, rates, warmup_steps=1, lora_r=4, lora_alpha=8.0), *PYRAMID),
    ]

    def write_list(name, entries):
        def write(path):
            with open(path, "w", encoding="ascii", newline="\n") as file:
                file.write("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")

        write_atomically(os.path.join(directory, name), write)

    write_list("cases.json", cases)
    write_list("steps.json", steps)
    print(f"{len(cases)} cases, {len(steps)} runs")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "train"))
