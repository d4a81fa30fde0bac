"""Checks reference.py and train_reference.py against the published PyramidDrop code (github.com/Cooperx521/PyramidDrop).

    python check_published.py CHECKOUT PUBLISHED_PYTHON

CHECKOUT is a checkout of that repository; PUBLISHED_PYTHON an interpreter with the transformers version it was written
for (README.md says which packages). The same random decoder and the same random image tokens go through both: this
process runs reference.py, a child process runs the published LlavaLlamaForCausalLM_PDrop with its own stitching of text
and image, its own ranking and dropping, and its own generate(). Compared are the kept tokens of every stage, the logits
after the prompt, and the logits of every greedy step through the cache. Labelled samples go through the published forward
in training mode: compared with train_reference.py are the kept tokens, the loss, and the gradient of every parameter and of
the image tokens. The pictures of parity/ go through the published process_images as well.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile
import warnings
from types import SimpleNamespace

import numpy as np
from PIL import Image

PICTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "parity", "*.png")
IMAGE_SIZE = 56
PINPOINTS = [(56, 112), (112, 56), (112, 112), (168, 56), (56, 168)]

N_NEW = 8
VOCAB = 320
SCHEDULES = {
    "dense": ([], []),
    "2 stages": ([3], [0.5]),
    "4 stages": ([1, 3, 5], [0.5, 0.25, 0.125]),
    "unequal": ([2, 5], [0.7, 0.3]),
    "withdrawn": ([3], [0.0]),
    "image last": ([2, 4], [0.5, 0.25]),
    "text only": ([2, 4], [0.5, 0.25]),
}
DECODERS = {
    "mha": dict(num_attention_heads=4, num_key_value_heads=4, rope_theta=10000.0),
    "gqa": dict(num_attention_heads=4, num_key_value_heads=2, rope_theta=500000.0),
}
# (decoder, attention). The published ranking does not repeat key heads, so a GQA decoder fails there; the same decoder
# with its key and value heads written out ("repeated") is the same function without GQA.
RUNS = [("mha", "sdpa"), ("mha", "eager"), ("gqa", "sdpa"), ("gqa repeated", "sdpa")]
SHARED = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=6, max_position_embeddings=2048,
              rms_norm_eps=1e-5)


def inputs(decoder, schedule):
    """(token ids with -200 for the image, image tokens [1, N, hidden]) of one check."""
    seed = [list(DECODERS).index(decoder.split()[0]), list(SCHEDULES).index(schedule)]
    generator = np.random.Generator(np.random.PCG64(seed))
    tokens = [1, *generator.integers(3, VOCAB, 6), -200, *generator.integers(3, VOCAB, 9)]
    if schedule == "image last":
        tokens = tokens[: tokens.index(-200) + 1]
    if schedule == "text only":
        tokens.remove(-200)
    return [int(token) for token in tokens], 0.5 * generator.standard_normal((1, 36, 64)).astype(np.float32)


# Labelled batches: "b" the begin token, "i" the image, "7" that many tokens to read, "+7" that many to learn. The published
# code shows every sample one image; with sdpa attention it fails on samples of different lengths, which need padding.
TRAINING = {
    "one turn": ["b 5 i 7 +6"],
    "three turns": ["b 4 i 6 +3 5 +4 3 +2"],
    "answer behind image": ["b i +8"],
    "image behind answers": ["b 4 +5 i 3"],
    "text only": ["b 8 +5 3 +2"],
    "no labels": ["b 5 i 9"],
    "batch": ["b 5 i 7 +6", "b 3 i 2 +4 7 +2", "b 9 i 6 +3"],
    "padded batch": ["b 5 i 7 +6", "b 3 i 2 +4"],
}
TRAINING_SCHEDULES = ["dense", "2 stages", "4 stages", "unequal", "withdrawn"]
TRAINING_RUNS = ["mha", "gqa repeated"]


def training_inputs(decoder, name):
    """(token ids and labels of every sample, image tokens [n_samples, N, hidden]) of one labelled batch."""
    generator = np.random.Generator(np.random.PCG64([7, list(DECODERS).index(decoder.split()[0]), list(TRAINING).index(name)]))
    samples = []
    for pattern in TRAINING[name]:
        tokens, labels = [], []
        for part in pattern.split():
            new = {"b": [1], "i": [-200]}.get(part)
            if new is None:
                new = [int(token) for token in generator.integers(3, VOCAB, int(part))]
            tokens += new
            labels += new if part.startswith("+") else [-100] * len(new)
        samples.append((tokens, labels))
    return samples, 0.5 * generator.standard_normal((len(samples), 36, 64)).astype(np.float32)


def kept_rows(before, after):
    """Which rows of a boundary's input are its output: a kept row is the same vector before and after."""
    places = [(before == row).all(dim=1).nonzero().flatten().tolist() for row in after]
    assert all(len(place) == 1 for place in places)
    return [place[0] for place in places]


# ---- the child: published code ---------------------------------------------------------------------------------


def published(checkout, directory):
    import torch

    sys.path.insert(0, checkout)
    from llava.model.language_model.llava_llama_pdrop import LlavaConfig, LlavaLlamaForCausalLM_PDrop

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    results, training, gradients = [], [], {}
    for decoder, attention in RUNS:
        shape = dict(DECODERS[decoder.split()[0]])
        weights = torch.load(f"{directory}/{decoder.split()[0]}.pt")
        if decoder.endswith("repeated"):
            n_repeat = shape["num_attention_heads"] // shape["num_key_value_heads"]
            shape["num_key_value_heads"] = shape["num_attention_heads"]
            head_dim = SHARED["hidden_size"] // shape["num_attention_heads"]
            for key, weight in weights.items():
                if "k_proj" in key or "v_proj" in key:
                    heads = weight.view(-1, head_dim, weight.shape[1])
                    weights[key] = heads.repeat_interleave(n_repeat, dim=0).flatten(0, 1)
        config = LlavaConfig(**SHARED, **shape)
        config._attn_implementation = attention
        model = LlavaLlamaForCausalLM_PDrop(config).eval()
        model.load_state_dict(weights)
        # The "image" handed to generate() already is its row of image tokens.
        model.model.vision_tower = torch.nn.Identity()
        model.model.mm_projector = torch.nn.Identity()

        boundaries = []
        rank_drop = model.model.pdrop_rank_drop

        def recorded(**arguments):
            result = rank_drop(**arguments)
            boundaries.append((arguments["features"].detach(), result[2].detach()))
            return result

        model.model.pdrop_rank_drop = recorded
        for schedule, (layers, ratios) in SCHEDULES.items():
            tokens, image = inputs(decoder, schedule)
            model.model.layer_list = layers
            model.model.image_token_ratio_list = [1.0, *ratios]
            boundaries.clear()
            options = dict(do_sample=False, max_new_tokens=N_NEW, min_new_tokens=N_NEW, use_cache=True, eos_token_id=None,
                           pad_token_id=0, output_scores=True, return_dict_in_generate=True)
            if -200 in tokens:
                options["images"] = torch.from_numpy(image)
            try:
                output = model.generate(torch.tensor([tokens]), **options)
            except Exception as error:  # reported by the parent
                results.append((decoder, attention, schedule, {"error": f"{type(error).__name__}: {error}"}))
                continue
            kept = [kept_rows(before[0], after[0]) for before, after in boundaries]
            results.append((decoder, attention, schedule, {
                "kept_rows": kept,
                "tokens": output.sequences[0, -N_NEW:].tolist(),
                "logits": [scores[0].tolist() for scores in output.scores],
            }))

        if decoder not in TRAINING_RUNS or attention != "sdpa":
            continue
        model.train()
        for name in TRAINING:
            for schedule in TRAINING_SCHEDULES:
                samples, images = training_inputs(decoder, name)
                layers, ratios = SCHEDULES[schedule]
                model.model.layer_list = layers
                model.model.image_token_ratio_list = [1.0, *ratios]
                boundaries.clear()
                model.zero_grad()
                images = torch.from_numpy(images).requires_grad_()
                longest = max(len(tokens) for tokens, _ in samples)
                ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in samples])
                labels = torch.tensor([own + [-100] * (longest - len(own)) for _, own in samples])
                mask = torch.tensor([[True] * len(own) + [False] * (longest - len(own)) for _, own in samples])
                try:
                    loss = model(ids, attention_mask=mask, labels=labels, images=images, use_cache=False, return_dict=True).loss
                    loss.backward()
                except Exception as error:  # reported by the parent
                    training.append((decoder, name, schedule, {"error": f"{type(error).__name__}: {error}"}))
                    continue
                key = str(len(training))
                for parameter, tensor in model.named_parameters():
                    gradients[f"{key} {parameter}"] = tensor.grad.numpy().copy()
                gradients[f"{key} images"] = images.grad.numpy().copy()
                kept = [[kept_rows(before[sample], after[sample]) for before, after in boundaries]
                        for sample in range(len(samples))]
                training.append((decoder, name, schedule, {"loss": loss.item(), "kept_rows": kept, "key": key}))
    with open(f"{directory}/published.json", "w") as file:
        json.dump({"inference": results, "training": training}, file)
    np.savez(f"{directory}/gradients.npz", **gradients)

    from llava.mm_utils import process_images
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    pixels = {}
    for path in sorted(glob.glob(PICTURES)):
        for aspect in ("pad", "anyres", None):
            config = SimpleNamespace(image_aspect_ratio=aspect, image_grid_pinpoints=PINPOINTS)
            tiles = process_images([Image.open(path).convert("RGB")], processor, config)
            pixels[f"{os.path.basename(path)} {aspect or 'square'}"] = np.asarray(tiles[0])
    np.savez(f"{directory}/pixels.npz", **pixels)


# ---- the parent: reference.py and train_reference.py ------------------------------------------------------------


def same_kept(their_rows, image_of_row, ours):
    """Whether both kept the same tokens. Their rows of a stage are places in the stage before; ours are the image's own
    token numbers."""
    live = list(range(len(image_of_row)))
    first = image_of_row.index(0) if 0 in image_of_row else 0
    same = True
    for stage, places in enumerate(their_rows, 1):
        live = [live[place] for place in places]
        image_rows = [row - first for row in live if image_of_row[row] == 0]
        same &= image_rows == (ours.kept[0][stage] if ours.kept else [])
        same &= len(live) == ours.rows_per_stage[stage]
    return same


def compare_training(models, theirs, gradients):
    """The published training forward against train_reference.py. Returns the number of differences."""
    import torch

    from reference import Llava, Policy
    from train_reference import Sample, batch_loss, sample_pass

    class GivenImages(Llava):
        """The "tiles" handed in already are the image tokens."""

        def image_tokens(self, tiles, grid, picture_size):
            return tiles

    failures = 0
    for decoder, name, schedule, result in theirs:
        title = f"training, {decoder}, {name}, {schedule}"
        if "error" in result:
            known = name == "padded batch" and SCHEDULES[schedule][0]
            failures += not known
            print(f"{title:55} the published code fails{', as known' if known else ''}: {result['error'][:60]}")
            continue
        model = models[decoder.split()[0]]
        model.set_attn_implementation("eager")
        model.requires_grad_(True)
        model.zero_grad()
        samples, images = training_inputs(decoder, name)
        images = torch.from_numpy(images).requires_grad_()
        llava = GivenImages(model)
        passes = [sample_pass(llava, Policy(*SCHEDULES[schedule]), Sample(tokens, labels, [(image, None, None)] * (-200 in tokens)))
                  for (tokens, labels), image in zip(samples, images)]
        kept_agree = True
        for (tokens, _), one, their_rows in zip(samples, passes, result["kept_rows"]):
            image_of_row = [row for token in tokens for row in ([0] * 36 if token == -200 else [-1])]
            kept_agree &= same_kept(their_rows, image_of_row, one)
        # No end sees the image: all its scores are 0, and among equals topk() has no order of its own. Nothing that is learnt
        # sees the image either.
        kept_agree |= name == "image behind answers"
        if name == "no labels":  # their mean over no labels is not a number
            ok = kept_agree and np.isnan(result["loss"]) and float(passes[0].loss) == 0.0
            failures += not ok
            print(f"{title:55} {'agrees' if ok else 'DIFFERS'}: nothing is dropped and nothing learnt")
            continue
        loss = batch_loss(passes)
        loss.backward()
        model.requires_grad_(False)
        difference = 0.0
        for key, tensor in [*model.named_parameters(), ("images", images)]:
            published = torch.from_numpy(gradients[f"{result['key']} {key}"])
            own = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            if published.shape != own.shape:  # key and value heads written out: their gradients add up
                heads = models[decoder.split()[0]].config.num_key_value_heads
                published = published.view(heads, -1, own.shape[0] // heads, own.shape[1]).sum(dim=1).flatten(0, 1)
            if float(own.norm()) == 0.0:
                difference = max(difference, float(published.norm()))
            else:
                difference = max(difference, float((published - own).norm() / own.norm()))
        loss_difference = abs(result["loss"] / float(loss.detach()) - 1)
        ok = kept_agree and difference < 1e-4 and loss_difference < 1e-5
        failures += not ok
        print(f"{title:55} {'agrees' if ok else 'DIFFERS'}: kept tokens {'equal' if kept_agree else 'DIFFERENT'}, loss within "
              f"{loss_difference:.1e}, gradients within {difference:.1e} of their norms")
    return failures


def compare(checkout, python):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from make_parity import decoder_spread, fill
    from reference import Llava, Policy, Session

    torch.set_num_threads(1)
    failures = 0
    with tempfile.TemporaryDirectory() as directory:
        models = {}
        for decoder, shape in DECODERS.items():
            shape = dict(shape)
            rope = {"rope_type": "default", "rope_theta": shape.pop("rope_theta")}
            config = LlamaConfig(**SHARED, **shape, rope_parameters=rope, attn_implementation="eager")
            models[decoder] = fill(LlamaForCausalLM(config), decoder, 2, decoder_spread)
            torch.save(models[decoder].state_dict(), f"{directory}/{decoder}.pt")
        subprocess.run([python, os.path.abspath(__file__), "--published", checkout, directory], check=True,
                       stdout=subprocess.DEVNULL)
        with open(f"{directory}/published.json") as file:
            theirs = json.load(file)
        gradients = dict(np.load(f"{directory}/gradients.npz"))
        pixels = dict(np.load(f"{directory}/pixels.npz"))

    for decoder, attention, schedule, result in theirs["inference"]:
        name = f"{decoder}, {attention}, {schedule}"
        tokens, image = inputs(decoder, schedule)
        layers, ratios = SCHEDULES[schedule]
        if "error" in result:
            known = layers and (attention == "eager" or decoder == "gqa")
            failures += not known
            print(f"{name:30} the published code fails{', as known' if known else ''}: {result['error'][:80]}")
            continue
        model = models[decoder.split()[0]]
        model.set_attn_implementation(attention)
        rows, image_of_row = Llava(model).embed(tokens, [torch.from_numpy(image[0])] if -200 in tokens else [])
        session = Session(model, Policy(layers, ratios))
        logits = [session.prefill(rows, image_of_row)]
        for token in result["tokens"][:-1]:
            logits.append(session.step(token))

        # Their rows of a stage are places in the stage before; ours are the image's own token numbers.
        kept_agree = same_kept(result["kept_rows"], image_of_row, session)
        difference = max(float((ours - torch.tensor(published)).abs().max() / ours.abs().max())
                         for ours, published in zip(logits, result["logits"]))
        ok = kept_agree and difference < 1e-5
        failures += not ok
        print(f"{name:30} {'agrees' if ok else 'DIFFERS'}: kept tokens {'equal' if kept_agree else 'DIFFERENT'}, rows "
              f"{session.rows_per_stage}, {len(logits)} rows of logits within {difference:.1e} of the largest")

    failures += compare_training(models, theirs["training"], gradients)

    vision = SimpleNamespace(config=SimpleNamespace(image_size=IMAGE_SIZE))
    llava = Llava(None, vision, grid_pinpoints=PINPOINTS)
    for name, published_tiles in pixels.items():
        file, aspect = name.split()
        tiles = llava.pixels(Image.open(PICTURES.replace("*.png", file)).convert("RGB"), aspect)[0].numpy()
        tiles = tiles.reshape(published_tiles.shape)
        difference = float(np.abs(tiles - published_tiles).max())
        failures += difference > 1e-6
        print(f"{name:30} {'agrees' if difference <= 1e-6 else 'DIFFERS'}: {list(tiles.shape)} pixels within {difference:.1e}")
    assert pixels and theirs["inference"] and theirs["training"]
    return failures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--published"]:
        published(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 3:
        sys.exit(1 if compare(sys.argv[1], sys.argv[2]) else 0)
    else:
        sys.exit(__doc__)
