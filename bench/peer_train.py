#!/usr/bin/env python3
"""A training step with PyramidDrop in PyTorch, eager mode: the peer of our trainer. transformers' LLaMA with random weights.

    python bench/peer_train.py --layers 8 --embd 1024 --ff 2752 --heads 16 --kv-heads 16 --vocab 32000 --image-tokens 576 \\
        --text-tokens 80 --batch 4 --layer-list 2,4,6 --ratios 0.5,0.25,0.125 --threads 2 --dtype bf16

Prints one line of JSON: milliseconds of a step (forward, backward, clipping, AdamW), peak memory, the live rows of every
stage, losses. With --wait it prints a line when it is ready, then runs one step for every line of standard input, so that it
can run in turn with others, and prints the whole at the end of its input. --check compares it with
tests/golden/train_reference.py on a tiny model.

What it computes is docs/algorithm.md with compact positions. It is written as fast as eager PyTorch allows: all samples have one
length, so nothing is padded; attention is scaled_dot_product_attention with its causal flag; ranking makes one query row a
sample; the last layer's queries and FFN, and the output head, run for the rows that predict a label only; AdamW and clipping are the fused ones.
"""

import argparse
import json
import os
import statistics
import sys
import time

import torch
import transformers
from torch.nn import functional
from transformers.models.clip.modeling_clip import CLIPVisionConfig, CLIPVisionModel
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaForCausalLM, rotate_half

MIB = 1 << 20


# ---- model -----------------------------------------------------------------------------------------------------


class Projector(torch.nn.Module):
    """LLaVA's mlp2x_gelu."""

    def __init__(self, n_vision, n_embd):
        super().__init__()
        self.linear_1 = torch.nn.Linear(n_vision, n_embd)
        self.linear_2 = torch.nn.Linear(n_embd, n_embd)

    def forward(self, features):
        return self.linear_2(functional.gelu(self.linear_1(features)))


class Llava(torch.nn.Module):
    """decoder alone, or with a projector, or with a frozen vision tower before it."""

    def __init__(self, options):
        super().__init__()
        config = LlamaConfig(
            hidden_size=options.embd, intermediate_size=options.ff, num_hidden_layers=options.layers,
            num_attention_heads=options.heads, num_key_value_heads=options.kv_heads, vocab_size=options.vocab,
            tie_word_embeddings=options.tied, max_position_embeddings=8192, rms_norm_eps=1e-5, attn_implementation="sdpa",
        )
        self.language_model = LlamaForCausalLM(config)
        self.projector = self.tower = None
        if not options.random_features:
            self.projector = Projector(options.tower_embd, options.embd)
            if options.tower_layers:
                side = options.tile_side * options.patch
                self.tower = CLIPVisionModel(CLIPVisionConfig(
                    hidden_size=options.tower_embd, intermediate_size=4 * options.tower_embd, image_size=side,
                    num_hidden_layers=options.tower_layers, num_attention_heads=options.tower_embd // 64,
                    patch_size=options.patch, attn_implementation="sdpa",
                )).eval().requires_grad_(False)

    def image_tokens(self, picture):
        """[batch, N, embd] from what stands for the pictures: embeddings, tower features, or tiles."""
        if self.tower is not None:
            with torch.no_grad():
                batch, n_tiles = picture.shape[:2]
                picture = self.tower(picture.flatten(0, 1)).last_hidden_state[:, 1:]
                picture = picture.reshape(batch, n_tiles * picture.shape[1], -1)
        return picture if self.projector is None else self.projector(picture)


def heads(x, head_size):
    """[batch, n, heads * head_size] -> [batch, heads, n, head_size]"""
    return x.view(x.shape[0], x.shape[1], -1, head_size).transpose(1, 2)


@torch.no_grad()
def rank(layer, rows, cos, sin, end, first, n_image, n_kept):
    """[batch, m] rows that stay: the text, and the n_kept image rows that row `end` attends to most in `layer`, the next to
    run. rows [batch, n, embd]; the image is rows first ... first + n_image - 1."""
    attention = layer.self_attn
    batch, n = rows.shape[:2]
    # Rows behind the end do not matter to it.
    normed = layer.input_layernorm(rows[:, : end + 1])
    query = heads(attention.q_proj(normed[:, end:]), attention.head_dim)
    keys = heads(attention.k_proj(normed), attention.head_dim)
    cos, sin = cos.to(keys.dtype), sin.to(keys.dtype)
    query = query * cos[:, None, end : end + 1] + rotate_half(query) * sin[:, None, end : end + 1]
    keys = keys * cos[:, None, : end + 1] + rotate_half(keys) * sin[:, None, : end + 1]
    # The query heads of one key head together: [batch, key heads, group, head_size].
    query = query.view(batch, keys.shape[1], -1, attention.head_dim)
    scores = (query @ keys.transpose(2, 3) * attention.scaling).softmax(dim=-1, dtype=torch.float32).mean(dim=(1, 2))
    best = first + scores[:, first : first + n_image].topk(n_kept).indices.sort().values
    rest = torch.arange(n, device=rows.device).expand(batch, n)
    return torch.cat((rest[:, :first], best, rest[:, first + n_image :]), dim=1)


def last_layer(layer, rows, cos, sin, end):
    """What `layer` makes of rows end ... -2, which predict a label: [batch, n - end - 1, embd]."""
    attention = layer.self_attn
    n = rows.shape[1]
    normed = layer.input_layernorm(rows)
    query = heads(attention.q_proj(normed[:, end:-1]), attention.head_dim)
    keys, values = (heads(project(normed), attention.head_dim) for project in (attention.k_proj, attention.v_proj))
    cos, sin = cos[:, None].to(keys.dtype), sin[:, None].to(keys.dtype)
    query = query * cos[:, :, end:-1] + rotate_half(query) * sin[:, :, end:-1]
    keys = keys * cos + rotate_half(keys) * sin
    seen = torch.ones(n, n, dtype=torch.bool, device=rows.device).tril()[end:-1]
    out = functional.scaled_dot_product_attention(query, keys, values, attn_mask=seen, enable_gqa=True)
    rows = rows[:, end:-1] + attention.o_proj(out.transpose(1, 2).flatten(2))
    return rows + layer.mlp(layer.post_attention_layernorm(rows))


def batch_loss(model, batch, drops):
    """Mean cross-entropy over the labels, and the rows of every stage.

    batch: `before` and `after` [batch, …] token ids around the image, `picture`, and `n_read`: how many tokens of `after` are
    the instruction; the rest is to be learnt. drops: {layers executed: image tokens kept from there on}.
    """
    decoder = model.language_model.model
    before, after, n_read = batch["before"], batch["after"], batch["n_read"]
    image = model.image_tokens(batch["picture"])
    rows = torch.cat((decoder.embed_tokens(before), image, decoder.embed_tokens(after)), dim=1)
    first, n_image = before.shape[1], image.shape[1]
    cos, sin = decoder.rotary_emb(rows, torch.arange(rows.shape[1], device=rows.device)[None])  # [1, n, head_size]
    n_rows = [rows.shape[1]]
    for index, layer in enumerate(decoder.layers):
        if index in drops:
            n_kept = drops[index]
            kept = rank(layer, rows, cos, sin, first + n_image + n_read - 1, first, n_image, n_kept)
            rows = rows.gather(1, kept[:, :, None].expand(-1, -1, rows.shape[2]))
            n_image = n_kept
            n_rows.append(rows.shape[1])
            cos, sin = cos[:, : rows.shape[1]], sin[:, : rows.shape[1]]  # the live rows are renumbered
        if index + 1 < len(decoder.layers):
            rows = layer(rows, attention_mask=None, position_embeddings=(cos, sin))
    rows = last_layer(decoder.layers[-1], rows, cos, sin, first + n_image + n_read - 1)
    logits = model.language_model.lm_head(decoder.norm(rows))
    return functional.cross_entropy(logits.float().flatten(0, 1), after[:, n_read:].flatten()), n_rows


def random_batch(options, device):
    generator = torch.Generator().manual_seed(1)
    n_before = options.text_tokens // 4
    n_after = options.text_tokens - n_before
    tokens = torch.randint(options.vocab, (options.batch, options.text_tokens), generator=generator)
    if options.random_features:
        picture = torch.randn(options.batch, options.image_tokens, options.embd, generator=generator) * 0.02
    elif options.tower_layers:
        side = options.tile_side * options.patch
        n_tiles = options.image_tokens // options.tile_side**2
        picture = torch.randn(options.batch, n_tiles, 3, side, side, generator=generator)
    else:
        picture = torch.randn(options.batch, options.image_tokens, options.tower_embd, generator=generator)
    return {"before": tokens[:, :n_before].to(device), "after": tokens[:, n_before:].to(device), "n_read": n_after // 2,
            "picture": picture.to(device)}


# ---- measuring -------------------------------------------------------------------------------------------------


def memory_mib(field):
    """VmRSS or VmHWM (the peak) of this process."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return None


def forget_peak():
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass  # then the peak includes what making the model took


class Trainer:
    def __init__(self, options):
        self.options = options
        self.device = torch.device(options.device)
        self.imported_mib = memory_mib("VmRSS")
        torch.manual_seed(0)
        self.model = Llava(options).to(self.device)
        self.parameters = [one for one in self.model.parameters() if one.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.0, fused=True)
        self.batch = random_batch(options, self.device)
        self.drops = {layer: int(options.image_tokens * ratio) for layer, ratio in zip(options.layer_list, options.ratios)}
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            forget_peak()

    def step(self):
        """One step. Returns (milliseconds, milliseconds of CPU time, loss, rows of every stage)."""
        start, cpu_start = time.perf_counter(), time.process_time()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.options.dtype == "bf16"):
            loss, n_rows = batch_loss(self.model, self.batch, self.drops)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        loss = loss.item()  # waits for a GPU, too
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - cpu_start), loss, n_rows

    def peak_mib(self):
        """The most memory since the model was made; on a CPU without what the imports had taken before."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / MIB
        return memory_mib("VmHWM") - self.imported_mib


def answer(value):
    print(json.dumps(value), flush=True)


def measure(options):
    trainer = Trainer(options)
    for _ in range(options.warmup):
        trainer.step()
    times, cpu_times, losses = [], [], []

    def one():
        ms, cpu_ms, loss, n_rows = trainer.step()
        times.append(round(ms, 2))
        cpu_times.append(round(cpu_ms, 2))
        losses.append(loss)
        return n_rows

    if options.wait:
        answer({"ready": True})
        for _ in sys.stdin:
            n_rows = one()
            answer({"ms": times[-1], "cpu_ms": cpu_times[-1]})
    else:
        for _ in range(options.steps):
            n_rows = one()
    if not times:
        return
    answer({
        "ms": round(statistics.median(times), 2), "cpu_ms": round(statistics.median(cpu_times), 2), "ms_all": times,
        "peak_mib": round(trainer.peak_mib(), 1),
        "imports_mib": round(trainer.imported_mib, 1), "n_rows": n_rows, "first_loss": losses[0], "last_loss": losses[-1],
        "n_parameters": sum(one.numel() for one in trainer.parameters), "dtype": options.dtype,
        "threads": torch.get_num_threads(), "device": options.device, "torch": torch.__version__,
        "transformers": transformers.__version__,
    })


# ---- check -----------------------------------------------------------------------------------------------------


def check():
    """Loss and gradients against tests/golden/train_reference.py, float32. Returns the number of differences."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden"))
    import reference
    import train_reference

    class GivenImages(reference.Llava):
        def image_tokens(self, tiles, grid, picture_size):
            return tiles

    failures = 0
    for kv_heads, layer_list, ratios in ((4, [], []), (4, [2, 4], [0.5, 0.25]), (2, [1, 3, 5], [0.7, 0.4, 0.1]), (4, [3], [0.0])):
        options = parser().parse_args(f"--layers 6 --embd 64 --ff 128 --heads 4 --kv-heads {kv_heads} --vocab 320 --batch 3 "
                                      "--image-tokens 36 --text-tokens 24 --random-features --dtype f32".split())
        torch.manual_seed(0)
        model = Llava(options)
        for parameter in model.parameters():
            parameter.data.mul_(5.0)  # transformers' initial weights are small: attention would be nearly uniform
        batch = random_batch(options, "cpu")
        drops = {layer: int(36 * ratio) for layer, ratio in zip(layer_list, ratios)}
        loss, n_rows = batch_loss(model, batch, drops)
        loss.backward()
        ours = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()

        llava = GivenImages(model.language_model)
        policy = reference.Policy(layer_list, ratios)
        passes = []
        for before, after, picture in zip(batch["before"].tolist(), batch["after"].tolist(), batch["picture"]):
            labels = [train_reference.IGNORE] * (len(before) + 1 + batch["n_read"]) + after[batch["n_read"] :]
            sample = train_reference.Sample([*before, reference.IMAGE_TOKEN, *after], labels, [(picture, None, None)])
            passes.append(train_reference.sample_pass(llava, policy, sample))
        expected = train_reference.batch_loss(passes)
        expected.backward()
        difference = max(float((a - b.grad).norm() / b.grad.norm()) for a, b in zip(ours, model.parameters()))
        rows = passes[0].rows_per_stage
        ok = difference < 1e-4 and abs(float(loss.detach() / expected.detach()) - 1) < 1e-5 and n_rows == rows
        failures += not ok
        print(f"{layer_list} {ratios} {kv_heads} key heads: {'agrees' if ok else 'DIFFERS'}, gradients within {difference:.1e} "
              "of their norms")
    return failures


# ---- main ------------------------------------------------------------------------------------------------------


def numbers(kind):
    return lambda text: [kind(word) for word in text.strip("[]").split(",") if word]


def parser():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("layers", 8), ("embd", 1024), ("ff", 2752), ("heads", 16), ("kv-heads", 16), ("vocab", 32000),
                          ("image-tokens", 576), ("text-tokens", 80), ("batch", 1), ("threads", 2), ("steps", 5), ("warmup", 1),
                          ("tower-layers", 0), ("tower-embd", 1024), ("tile-side", 24), ("patch", 14)):
        p.add_argument("--" + name, type=int, default=default)
    p.add_argument("--layer-list", type=numbers(int), default=[], help="none: dense")
    p.add_argument("--ratios", type=numbers(float), default=[])
    p.add_argument("--dtype", choices=["f32", "bf16"], default="bf16", help="bf16: autocast over float32 weights")
    p.add_argument("--tied", action="store_true", help="the output matrix is the embedding")
    p.add_argument("--random-features", action="store_true", help="random image tokens: decoder alone, no projector, no tower. "
                   "Without it random features go through a projector, or, with --tower-layers, pictures through a frozen ViT")
    p.add_argument("--device", default="cpu")
    p.add_argument("--wait", action="store_true", help="one step for every line of standard input")
    p.add_argument("--check", action="store_true", help="compare with tests/golden/train_reference.py")
    return p


def main():
    p = parser()
    options = p.parse_args()
    if len(options.layer_list) != len(options.ratios):
        p.error("--layer-list and --ratios must have the same length")
    if options.tower_layers and options.image_tokens % options.tile_side**2 != 0:
        p.error("--image-tokens must be a multiple of --tile-side squared")
    torch.set_num_threads(options.threads)
    if options.check:
        sys.exit(1 if check() else 0)
    measure(options)


if __name__ == "__main__":
    main()
