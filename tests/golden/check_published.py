"""Checks reference.py against the published PyramidDrop code (github.com/Cooperx521/PyramidDrop).

    python check_published.py CHECKOUT PUBLISHED_PYTHON

CHECKOUT is a checkout of that repository; PUBLISHED_PYTHON an interpreter with the transformers version it was written
for (README.md says which packages). The same random decoder and the same random image tokens go through both: this
process runs reference.py, a child process runs the published LlavaLlamaForCausalLM_PDrop with its own stitching of text
and image, its own ranking and dropping, and its own generate(). Compared are the kept tokens of every stage, the logits
after the prompt, and the logits of every greedy step through the cache. The pictures of parity/ go through the published
process_images as well.
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


# ---- the child: published code ---------------------------------------------------------------------------------


def published(checkout, directory):
    import torch

    sys.path.insert(0, checkout)
    from llava.model.language_model.llava_llama_pdrop import LlavaConfig, LlavaLlamaForCausalLM_PDrop

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    results = []
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
            boundaries.append((arguments["features"][0], result[2][0]))
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
            # A kept row is the same vector before and after the drop.
            kept = []
            for before, after in boundaries:
                places = [(before == row).all(dim=1).nonzero().flatten().tolist() for row in after]
                assert all(len(place) == 1 for place in places)
                kept.append([place[0] for place in places])
            results.append((decoder, attention, schedule, {
                "kept_rows": kept,
                "tokens": output.sequences[0, -N_NEW:].tolist(),
                "logits": [scores[0].tolist() for scores in output.scores],
            }))
    with open(f"{directory}/published.json", "w") as file:
        json.dump(results, file)

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


# ---- the parent: reference.py ----------------------------------------------------------------------------------


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
        subprocess.run([python, os.path.abspath(__file__), "--published", checkout, directory], check=True)
        with open(f"{directory}/published.json") as file:
            theirs = json.load(file)
        pixels = dict(np.load(f"{directory}/pixels.npz"))

    for decoder, attention, schedule, result in theirs:
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
        kept_agree = True
        live = list(range(len(rows)))
        for stage, places in enumerate(result["kept_rows"], 1):
            live = [live[place] for place in places]
            first = image_of_row.index(0) if 0 in image_of_row else 0
            image_rows = [row - first for row in live if image_of_row[row] == 0]
            kept_agree &= image_rows == (session.kept[0][stage] if session.kept else [])
            kept_agree &= len(live) == session.rows_per_stage[stage]
        difference = max(float((ours - torch.tensor(published)).abs().max() / ours.abs().max())
                         for ours, published in zip(logits, result["logits"]))
        ok = kept_agree and difference < 1e-5
        failures += not ok
        print(f"{name:30} {'agrees' if ok else 'DIFFERS'}: kept tokens {'equal' if kept_agree else 'DIFFERENT'}, rows "
              f"{session.rows_per_stage}, {len(logits)} rows of logits within {difference:.1e} of the largest")

    vision = SimpleNamespace(config=SimpleNamespace(image_size=IMAGE_SIZE))
    llava = Llava(None, vision, grid_pinpoints=PINPOINTS)
    for name, published_tiles in pixels.items():
        file, aspect = name.split()
        tiles = llava.pixels(Image.open(PICTURES.replace("*.png", file)).convert("RGB"), aspect)[0].numpy()
        tiles = tiles.reshape(published_tiles.shape)
        difference = float(np.abs(tiles - published_tiles).max())
        failures += difference > 1e-6
        print(f"{name:30} {'agrees' if difference <= 1e-6 else 'DIFFERS'}: {list(tiles.shape)} pixels within {difference:.1e}")
    assert pixels and theirs
    return failures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--published"]:
        published(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 3:
        sys.exit(1 if compare(sys.argv[1], sys.argv[2]) else 0)
    else:
        sys.exit(__doc__)
