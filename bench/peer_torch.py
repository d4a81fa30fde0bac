#!/usr/bin/env python3
"""PyramidDrop's prefill in PyTorch, the peer of `make bench-peers`: transformers' LLaMA with random weights.

    python bench/peer_torch.py --layers 8 --threads 2 --layer_list 2,4,6 --image_token_ratio_list 0.5,0.25,0.125

Prints one line of JSON when it is ready. Then, for every line "N_IMAGE N_TEXT" on standard input, it runs one prefill
to warm up and one that counts, and prints {"ms": ..., "n_rows": [of each stage]}. It ends with its input.

What it computes is docs/algorithm.md with compact positions. It is written as fast as eager PyTorch allows: weights and
modules are transformers', attention is scaled_dot_product_attention, nothing is padded, the key projections that
ranking makes serve the next layer, and the last layer and the output head run for the last row only.
"""

import argparse
import json
import sys
import time

import torch
import transformers
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaForCausalLM, LlamaRotaryEmbedding, rotate_half

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def make_model(n_layers, dtype):
    """LLaVA-1.5-7B's decoder with n_layers layers and random weights."""
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=n_layers,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=32000,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model = model.to(dtype).to_empty(device="cpu").eval()
    model.model.rotary_emb = LlamaRotaryEmbedding(config)
    # Timing does not look at values, and drawing two billion of them takes a minute: a pool of them is repeated.
    pool = (torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            for part in parameter.view(-1).split(pool.numel()):
                part.copy_(pool[: part.numel()])
    return model


def heads(x, head_size):
    """[1, n, heads * head_size] -> [1, heads, n, head_size]"""
    return x.view(1, x.shape[1], -1, head_size).transpose(1, 2)


def rope(x, cos, sin):
    return x * cos + rotate_half(x) * sin


def rank(layer, normed, keys, cos, sin, first, n_image, n_kept):
    """Indices of the rows that stay: the text, and the n_kept image rows that the last row attends to most.

    layer: the next to run; normed [1, n, d]: its normalised input; keys [1, h, n, head_size]: its key projections;
    the image is rows first ... first + n_image - 1.
    """
    attention = layer.self_attn
    n = normed.shape[1]
    query = rope(heads(attention.q_proj(normed[:, -1:]), attention.head_dim), cos[:, n - 1 :], sin[:, n - 1 :])
    logits = query @ rope(keys, cos, sin).transpose(2, 3) * attention.scaling  # [1, h, 1, n]
    scores = logits.softmax(dim=-1, dtype=torch.float32).mean(dim=1).view(n)
    best = scores[first : first + n_image].topk(n_kept).indices.sort().values
    return torch.cat((torch.arange(first), first + best, torch.arange(first + n_image, n)))


def prefill(model, rows, first, n_image, drops):
    """Logits of the last row [1, 1, vocabulary], the KV cache, and the rows of every stage.

    rows [1, n, d]: embeddings, the image's in rows first ... first + n_image - 1;
    drops: {layers executed: image tokens kept from there on}.
    """
    layers = model.model.layers
    cos, sin = model.model.rotary_emb(rows, torch.arange(rows.shape[1])[None])  # [1, n, head_size]
    cache, n_rows = [], [rows.shape[1]]
    for index, layer in enumerate(layers):
        attention = layer.self_attn
        normed = layer.input_layernorm(rows)
        keys = heads(attention.k_proj(normed), attention.head_dim)
        if index in drops:
            kept = rank(layer, normed, keys, cos, sin, first, n_image, drops[index])
            rows, normed, keys = rows.index_select(1, kept), normed.index_select(1, kept), keys.index_select(2, kept)
            n_image = drops[index]
            n_rows.append(rows.shape[1])
            cos, sin = cos[:, : rows.shape[1]], sin[:, : rows.shape[1]]  # the live rows are renumbered
        values = heads(attention.v_proj(normed), attention.head_dim)
        asked = slice(-1 if index == len(layers) - 1 else 0, None)  # the rows whose output is wanted
        queries = rope(heads(attention.q_proj(normed[:, asked]), attention.head_dim), cos[:, asked], sin[:, asked])
        keys = rope(keys, cos, sin)
        cache.append((keys, values))
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=queries.shape[2] > 1)
        rows = rows[:, asked] + attention.o_proj(mixed.transpose(1, 2).reshape(1, queries.shape[2], -1))
        rows = rows + layer.mlp(layer.post_attention_layernorm(rows))
    return model.lm_head(model.model.norm(rows[:, -1:])), cache, n_rows


def faster_dtype():
    """The faster of f32 and bf16 in a matrix product, and the time of each in milliseconds."""
    times = {}
    for name, dtype in DTYPES.items():
        rows, weight = torch.ones(128, 4096, dtype=dtype), torch.ones(4096, 4096, dtype=dtype)
        functional.linear(rows, weight)
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            functional.linear(rows, weight)
            best = min(best, 1e3 * (time.perf_counter() - start))
        times[name] = round(best, 2)
    return min(times, key=times.get), times


def answer(value):
    print(json.dumps(value), flush=True)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["auto", *DTYPES], default="auto")
    parser.add_argument("--layer_list", required=True)
    parser.add_argument("--image_token_ratio_list", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    layer_list = [int(text) for text in options.layer_list.split(",")]
    ratios = [float(text) for text in options.image_token_ratio_list.split(",")]

    dtype, times = faster_dtype() if options.dtype == "auto" else (options.dtype, {})
    model = make_model(options.layers, DTYPES[dtype])
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    answer({"dtype": dtype, "product_ms": times, "threads": torch.get_num_threads(), **versions})
    for line in sys.stdin:
        n_image, n_text = (int(word) for word in line.split())
        drops = {layer: int(n_image * ratio) for layer, ratio in zip(layer_list, ratios)}
        rows = torch.randn(1, n_image + n_text, model.config.hidden_size).to(DTYPES[dtype])
        for _ in range(2):
            start = time.perf_counter()
            n_rows = prefill(model, rows, n_text // 2, n_image, drops)[2]
            ms = 1e3 * (time.perf_counter() - start)
        answer({"ms": ms, "n_rows": n_rows})


if __name__ == "__main__":
    main()
