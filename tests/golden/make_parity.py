"""Makes tests/golden/parity: tiny random models as GGUF files, pictures, and what they must compute.

    python make_parity.py [OUTPUT_DIRECTORY]

See README.md for the format. Weights come from numpy's PCG64, one stream a tensor, so they do not depend on PyTorch's
version; the last digits of the goldens may.
"""

import json
import os
import sys
import zlib
from dataclasses import dataclass

import gguf
import numpy as np
import PIL
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from reference import CLIP_MEAN, CLIP_STD, IMAGE_TOKEN, Llava, Policy, Session, anyres_tiles, clip_preprocess, pad_to_square

N_VOCAB = 320
N_GREEDY = 16
# A case is kept only if every decision in it is clear, so that an independent float32 program must decide the same.
MIN_CUT_MARGIN = 1e-3  # (last kept - first dropped) / last kept
MIN_TOKEN_MARGIN = 3e-3  # (best - second) / (best - worst) logit
MIN_DIFFERENT_TOKENS = 5  # an answer that repeats one token would test little


# ---- files -----------------------------------------------------------------------------------------------------


def write_atomically(path, write):
    """write(temporary path), then rename: readers never see half a file."""
    temporary = path + ".tmp"
    write(temporary)
    os.replace(temporary, path)


def number(x):
    """A float32 with the 9 significant digits that bring it back exactly."""
    return float(f"{x:.9g}")


# ---- vocabularies ----------------------------------------------------------------------------------------------

LETTERS = "etaoinshrdlcumwfgypbvkjxqz"


def llama_vocabulary():
    """SentencePiece as llama.cpp stores it: 3 specials, 256 bytes, letters, and pieces in the order they merge."""
    normal, control, unknown, byte = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN, gguf.TokenType.BYTE
    tokens = [("<unk>", 0.0, unknown), ("<s>", 0.0, control), ("</s>", 0.0, control)]
    tokens += [(f"<0x{value:02X}>", 0.0, byte) for value in range(256)]
    pieces = ["▁t", "he", "▁a", "in", "▁the", "re", "er", "on", "▁w", "▁s", "at", "nd", "is", "or", "▁i", "▁in", "▁is",
              "an", "▁and", "▁of", "ing", "es", "it", "ou", "▁c", "▁ca", "▁cat", "▁d", "▁do", "▁dog", "▁p", "▁to"]
    pieces += ["▁"] + list(LETTERS) + [",", "."]
    assert len(tokens) + len(pieces) == N_VOCAB
    return tokens + [(piece, -float(rank), normal) for rank, piece in enumerate(pieces)]


def byte_characters():
    """GPT-2's printable character for every byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    characters, n_others = {}, 0
    for value in range(256):
        characters[value] = chr(value) if value in printable else chr(256 + n_others)
        n_others += value not in printable
    return characters


def qwen2_vocabulary():
    """Byte-level BPE: 256 bytes, merged pieces, 3 specials, unused padding. Also the merges."""
    characters = byte_characters()
    space = characters[ord(" ")]
    merges = [(space, "t"), ("h", "e"), (space, "a"), ("i", "n"), (space + "t", "he"), ("r", "e"), (space, "c"),
              ("a", "t"), (space + "c", "at"), (space, "i"), (space + "i", "s"), ("o", "g"), (space, "d"),
              (space + "d", "og"), ("n", "d"), (space + "a", "nd"), ("in", "g"), ("e", "s"), ("o", "n"), ("T", "he"),
              ("o", "r"), ("e", "r"), ("o", "u"), ("l", "l"), ("s", "t"), ("i", "t"), (space, "w"), (space, "s"),
              (space, "p"), (space, "b"), (space, "f"), (space, "o"), (space + "o", "f"), (space, "m"), (space + "t", "o"),
              (space + "i", "n"), (space, "h"), ("e", "n"), ("a", "n"), ("e", "d"), ("i", "on"), (space + "f", "or"),
              (space, "re"), ("a", "r"), ("i", "s"), ("a", "l"), ("l", "e"), (space, "n"), (space, "l"), (space, "e"),
              (space, "g"), ("c", "h")]
    tokens = [(characters[value], gguf.TokenType.NORMAL) for value in range(256)]
    tokens += [(left + right, gguf.TokenType.NORMAL) for left, right in merges]
    tokens += [(text, gguf.TokenType.CONTROL) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    while len(tokens) < N_VOCAB:
        tokens.append((f"[PAD{len(tokens)}]", gguf.TokenType.UNUSED))
    assert len({text for text, _ in tokens}) == N_VOCAB
    return tokens, [f"{left} {right}" for left, right in merges]


# transformers wants an id of the vocabulary in the places of the image tokens: this one, which no case uses.
HF_IMAGE_ID = N_VOCAB - 1


def reserved_tokens(arch):
    """Tokens that no random text and no answer of a case may hold: specials, padding and HF_IMAGE_ID."""
    if arch == "llama":
        return {0, 1, 2, HF_IMAGE_ID}
    tokens, _ = qwen2_vocabulary()
    return {token for token, (_, kind) in enumerate(tokens) if kind != gguf.TokenType.NORMAL} | {HF_IMAGE_ID}


# ---- random weights --------------------------------------------------------------------------------------------


def fill(module, name, seed, std):
    """Fills a module's parameters. std(parameter name, shape) gives the spread, or (mean, spread)."""
    for key, parameter in module.named_parameters():
        mean_and_std = std(key, tuple(parameter.shape))
        mean, spread = mean_and_std if isinstance(mean_and_std, tuple) else (0.0, mean_and_std)
        generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(f"{name}.{key}".encode())]))
        values = mean + spread * generator.standard_normal(tuple(parameter.shape))
        parameter.data.copy_(torch.from_numpy(values.astype(np.float32)))
    return module.eval().requires_grad_(False)


def decoder_spread(key, shape):
    """Attention far from uniform (q·k/√d of spread about 2), logits of spread about 2."""
    if "norm" in key:
        return 1.0, 0.2
    if key.endswith("bias"):
        return 0.1 if "v_proj" in key else 0.3
    if "embed_tokens" in key:
        return 0.35
    if "q_proj" in key or "k_proj" in key:
        return 1.4 / shape[1] ** 0.5
    if "lm_head" in key:
        return 2.5 / shape[1] ** 0.5
    return 1.0 / shape[1] ** 0.5


def tied_decoder_spread(key, shape):
    """The same for a decoder whose output matrix is its embedding: small embeddings, or it would repeat its last token."""
    if key == "model.norm.weight":
        return 2.0, 0.4
    return 0.15 if "embed_tokens" in key else decoder_spread(key, shape)


def vision_spread(key, shape):
    if "norm" in key:
        return (1.0, 0.2) if key.endswith("weight") else 0.1
    if key.endswith("bias"):
        return 0.1
    if "class_embedding" in key or "position_embedding" in key:
        return 0.5
    if "patch_embedding" in key:
        return 2.0 / (shape[1] * shape[2] * shape[3]) ** 0.5
    if "q_proj" in key or "k_proj" in key:
        return 1.4 / shape[1] ** 0.5
    return 1.0 / shape[1] ** 0.5


# ---- models ----------------------------------------------------------------------------------------------------


class Projector(torch.nn.Module):
    """LLaVA's mlp2x_gelu."""

    def __init__(self, n_vision, n_embd):
        super().__init__()
        self.linear_1 = torch.nn.Linear(n_vision, n_embd)
        self.act = torch.nn.GELU()
        self.linear_2 = torch.nn.Linear(n_embd, n_embd)

    def forward(self, features):
        return self.linear_2(self.act(self.linear_1(features)))


def projector_spread(key, shape):
    return 0.1 if key.endswith("bias") else (1.0 if "linear_1" in key else 0.7) / shape[1] ** 0.5


def text_model(name, seed, arch="llama", layers=6, hidden=64, heads=4, kv_heads=4, ffn=128, tied=False, theta=10000.0,
               rope=None, head_dim=None, eps=1e-5):
    shared = dict(
        vocab_size=N_VOCAB, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=2048, rms_norm_eps=eps, tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": theta, **(rope or {})}, bos_token_id=1, eos_token_id=2,
        attn_implementation="eager",
    )
    if head_dim:
        shared["head_dim"] = head_dim
    if arch == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shared))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**shared))
    return fill(model, name, seed, tied_decoder_spread if tied else decoder_spread)


def vision_model(name, seed, size, act, n_embd, hidden=32, layers=3):
    config = CLIPVisionConfig(
        hidden_size=hidden, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2, image_size=size,
        patch_size=14, hidden_act=act, layer_norm_eps=1e-5, projection_dim=n_embd, attn_implementation="eager",
    )
    tower = fill(CLIPVisionModel(config), name, seed, vision_spread)
    return tower, fill(Projector(hidden, n_embd), name + ".projector", seed, projector_spread)


# ---- GGUF ------------------------------------------------------------------------------------------------------


def for_interleaved_rope(weight, heads):
    """Rows of W_q or W_k from transformers' order (halves of a head) to llama.cpp's NORM order (pairs)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_text_gguf(path, model, name):
    config = model.config
    arch = "qwen2" if isinstance(config, Qwen2Config) else "llama"
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters

    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(N_VOCAB)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    if arch == "llama":
        writer.add_rope_dimension_count(head_dim)
    if head_dim != config.hidden_size // config.num_attention_heads:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])

    if arch == "llama":
        texts, scores, kinds = zip(*llama_vocabulary())
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(texts)
        writer.add_token_scores(scores)
        writer.add_token_types(kinds)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(True)
    else:
        tokens, merges = qwen2_vocabulary()
        texts, kinds = zip(*tokens)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(texts)
        writer.add_token_types(kinds)
        writer.add_token_merges(merges)
        writer.add_bos_token_id(texts.index("<|endoftext|>"))
        writer.add_eos_token_id(texts.index("<|im_end|>"))
        writer.add_pad_token_id(texts.index("<|endoftext|>"))
        writer.add_add_bos_token(False)

    def add(tensor_name, tensor):
        writer.add_tensor(tensor_name, np.ascontiguousarray(tensor.numpy(), dtype=np.float32))

    decoder = model.model
    add("token_embd.weight", decoder.embed_tokens.weight)
    if rope["rope_type"] == "llama3":
        # llama.cpp divides the plain frequencies by this tensor.
        plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        add("rope_freqs.weight", plain / decoder.rotary_emb.inv_freq)
    for index, layer in enumerate(decoder.layers):
        attention, block = layer.self_attn, f"blk.{index}."
        query, key = attention.q_proj.weight, attention.k_proj.weight
        if arch == "llama":
            query = for_interleaved_rope(query, config.num_attention_heads)
            key = for_interleaved_rope(key, config.num_key_value_heads)
        add(block + "attn_norm.weight", layer.input_layernorm.weight)
        add(block + "attn_q.weight", query)
        add(block + "attn_k.weight", key)
        add(block + "attn_v.weight", attention.v_proj.weight)
        add(block + "attn_output.weight", attention.o_proj.weight)
        if arch == "qwen2":
            add(block + "attn_q.bias", attention.q_proj.bias)
            add(block + "attn_k.bias", attention.k_proj.bias)
            add(block + "attn_v.bias", attention.v_proj.bias)
        add(block + "ffn_norm.weight", layer.post_attention_layernorm.weight)
        add(block + "ffn_gate.weight", layer.mlp.gate_proj.weight)
        add(block + "ffn_up.weight", layer.mlp.up_proj.weight)
        add(block + "ffn_down.weight", layer.mlp.down_proj.weight)
    add("output_norm.weight", decoder.norm.weight)
    if not config.tie_word_embeddings:
        add("output.weight", model.lm_head.weight)
    finish(writer)


def write_mmproj_gguf(path, llava, name, layout):
    """layout:
    "feature_layer"  what llama.cpp's converter writes when the configuration names the feature layer: the unused last
                     layer is left out, block_count counts the layers that are stored
    "all_layers"     the same with every layer stored: feature_layer alone says how many run
    "legacy"         the files of 2023 and 2024: no feature_layer, block_count layers stored and run, and the names of
                     ffn_up and ffn_down swapped
    """
    tower, projector = llava.vision_tower, llava.projector
    config = tower.config
    n_used = config.num_hidden_layers + 1 + llava.feature_layer  # hidden state n_used is the one LLaVA takes
    n_stored = config.num_hidden_layers if layout == "all_layers" else n_used
    fc1, fc2 = ("ffn_down", "ffn_up") if layout == "legacy" else ("ffn_up", "ffn_down")

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_name(name)
    writer.add_description("image encoder for LLaVA")
    writer.add_string("clip.projector_type", "mlp")
    writer.add_uint32("clip.vision.image_size", config.image_size)
    writer.add_uint32("clip.vision.patch_size", config.patch_size)
    writer.add_uint32("clip.vision.embedding_length", config.hidden_size)
    writer.add_uint32("clip.vision.feed_forward_length", config.intermediate_size)
    writer.add_uint32("clip.vision.projection_dim", config.projection_dim)
    writer.add_uint32("clip.vision.attention.head_count", config.num_attention_heads)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", config.layer_norm_eps)
    writer.add_uint32("clip.vision.block_count", n_stored)
    if llava.grid_pinpoints:
        writer.add_array("clip.vision.image_grid_pinpoints", [side for point in llava.grid_pinpoints for side in point])
        writer.add_string("clip.vision.image_aspect_ratio", "anyres")
        writer.add_string("clip.vision.mm_patch_merge_type", "spatial_unpad")
    if layout != "legacy":
        writer.add_array("clip.vision.feature_layer", [n_used])
    writer.add_array("clip.vision.image_mean", list(CLIP_MEAN))
    writer.add_array("clip.vision.image_std", list(CLIP_STD))
    writer.add_bool("clip.use_gelu", config.hidden_act == "gelu")

    def add(tensor_name, tensor):
        writer.add_tensor(tensor_name, np.ascontiguousarray(tensor.numpy(), dtype=np.float32))

    if llava.image_newline is not None:
        add("model.image_newline", llava.image_newline)
    for index, linear in ((0, projector.linear_1), (2, projector.linear_2)):
        add(f"mm.{index}.weight", linear.weight)
        add(f"mm.{index}.bias", linear.bias)
    add("v.class_embd", tower.embeddings.class_embedding)
    add("v.patch_embd.weight", tower.embeddings.patch_embedding.weight)
    add("v.position_embd.weight", tower.embeddings.position_embedding.weight)
    add("v.pre_ln.weight", tower.pre_layrnorm.weight)
    add("v.pre_ln.bias", tower.pre_layrnorm.bias)
    for index, layer in enumerate(tower.encoder.layers[:n_stored]):
        attention = layer.self_attn
        for tensor_name, module in (
            ("attn_q", attention.q_proj), ("attn_k", attention.k_proj), ("attn_v", attention.v_proj),
            ("attn_out", attention.out_proj), ("ln1", layer.layer_norm1), ("ln2", layer.layer_norm2),
            (fc1, layer.mlp.fc1), (fc2, layer.mlp.fc2),
        ):
            add(f"v.blk.{index}.{tensor_name}.weight", module.weight)
            add(f"v.blk.{index}.{tensor_name}.bias", module.bias)
    finish(writer)


# ---- pictures --------------------------------------------------------------------------------------------------


def picture(seed, width, height):
    """Smooth colours, a disc and stripes: edges for the resampler, differences for the ViT."""
    generator = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = x / width, y / height
    pixels = np.zeros((height, width, 3))
    for channel in range(3):
        a, b, c, d = generator.uniform(-2, 2, 4)
        pixels[:, :, channel] = 127 + 90 * np.sin(3 * (a * u + b * v) + 2 * c * u * v + d)
    centre_x, centre_y, radius = generator.uniform(0.25, 0.75), generator.uniform(0.25, 0.75), generator.uniform(0.1, 0.3)
    disc = (u - centre_x) ** 2 + (v - centre_y) ** 2 < radius**2
    pixels[disc] = generator.uniform(0, 255, 3)
    stripes = ((x + 2 * y) // generator.integers(3, 7) % 2 == 0) & (u > generator.uniform(0.5, 0.8))
    pixels[stripes] *= 0.4
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")


# ---- cases -----------------------------------------------------------------------------------------------------


def prompt(pattern, seed, arch):
    """Token ids of a pattern: "b" the begin token, "i" an image, a number that many random text tokens."""
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(pattern.encode())]))
    allowed = [token for token in range(N_VOCAB) if token not in reserved_tokens(arch)]
    tokens = []
    for part in pattern.split():
        if part == "b":
            tokens.append(1 if arch == "llama" else qwen2_vocabulary()[0].index(("<|endoftext|>", gguf.TokenType.CONTROL)))
        elif part == "i":
            tokens.append(IMAGE_TOKEN)
        else:
            tokens += [int(token) for token in generator.choice(allowed, int(part))]
    return tokens


@dataclass
class Run:
    session: Session
    logits: torch.Tensor  # after the prompt
    greedy: list  # N_GREEDY tokens
    final_logits: torch.Tensor  # after the last of them
    cut_margin: float  # the smallest
    token_margin: float


def run(llava, tokens, features, policy, attention="eager", if_clear=False, reserved=()):
    """The prompt and the greedy answer. With if_clear: None as soon as a decision is not clear or a token reserved."""
    llava.language_model.set_attn_implementation(attention)
    rows, image_of_row = llava.embed(tokens, features)
    session = Session(llava.language_model, policy)
    logits = prompt_logits = session.prefill(rows, image_of_row)
    cut_margin = min(session.margins, default=float("inf"))
    greedy, token_margin = [], float("inf")
    while len(greedy) < N_GREEDY:
        best, second = torch.topk(logits, 2).values
        token_margin = min(token_margin, float((best - second) / (best - logits.min())))
        greedy.append(int(logits.argmax()))
        if if_clear and (cut_margin <= MIN_CUT_MARGIN or token_margin <= MIN_TOKEN_MARGIN or greedy[-1] in reserved):
            return None
        logits = session.step(greedy[-1])
    return Run(session, prompt_logits, greedy, logits, cut_margin, token_margin)


worst = {}  # what was compared -> the largest difference seen, as a share of the largest value


def assert_close(a, b, tolerance, what, where):
    difference = float((a - b).abs().max() / b.abs().max())
    assert difference < tolerance, f"{where}: {what}: {difference}"
    worst[what] = max(worst.get(what, 0.0), difference)


def make_case(name, llava, model, mmproj, arch, pattern, images, pictures, policy, aspect):
    """Tries prompts until every cut and every greedy step is clear."""
    features = [llava.image_features(pictures[image], aspect) for image in images]
    for seed in range(1000):
        tokens = prompt(pattern, seed, arch)
        eager = run(llava, tokens, features, policy, if_clear=True, reserved=reserved_tokens(arch))
        if eager and len(set(eager.greedy)) >= MIN_DIFFERENT_TOKENS:
            break
    else:
        raise RuntimeError(f"{name}: no suitable prompt")
    session, greedy, logits, final_logits = eager.session, eager.greedy, eager.logits, eager.final_logits

    sdpa = run(llava, tokens, features, policy, "sdpa")
    assert sdpa.session.kept == session.kept and sdpa.greedy == greedy
    assert_close(logits, sdpa.logits, 5e-6, "eager against sdpa", name)
    assert_close(final_logits, sdpa.final_logits, 5e-6, "eager against sdpa", name)
    llava.language_model.set_attn_implementation("eager")

    source = "reference"
    if not policy.layer_list:
        source = "transformers"
        theirs = transformers_logits(llava, tokens, greedy, [pictures[image] for image in images], aspect)
        assert_close(logits, theirs[0], 1e-5, "reference against transformers", name)
        assert_close(final_logits, theirs[1], 1e-5, "reference against transformers", name)
        logits, final_logits = theirs

    print(f"{name:32} rows {session.rows_per_stage}  cut margin {eager.cut_margin:.1e}  token margin {eager.token_margin:.1e}  "
          f"{len(set(greedy))} different tokens  prompt seed {seed}")
    return {
        "name": name,
        "model": model,
        "mmproj": mmproj,
        "images": images,
        "aspect": aspect,
        "tokens": tokens,
        "layer_list": policy.layer_list,
        "image_token_ratio_list": policy.image_token_ratio_list,
        "positions": policy.positions,
        "source": source,
        "expect": {
            "image_tokens": [len(feature) for feature in features],
            "rows_per_stage": session.rows_per_stage,
            "kept": session.kept,
            "scores": [[[number(x) for x in drop] for drop in image] for image in session.scores],
            "logits": [number(x) for x in logits.tolist()],
            "greedy": greedy,
            "final_logits": [number(x) for x in final_logits.tolist()],
        },
    }


@torch.no_grad()
def transformers_logits(llava, tokens, greedy, pictures, aspect):
    """The same two rows of logits from transformers' own whole models: (after the prompt, after the greedy tokens)."""
    text = llava.language_model
    if not pictures:
        ids = torch.tensor([tokens + greedy])
        logits = text(input_ids=ids).logits[0]
        return logits[len(tokens) - 1], logits[-1]

    shared = dict(
        vision_config=llava.vision_tower.config, text_config=text.config, image_token_index=HF_IMAGE_ID,
        image_token_id=HF_IMAGE_ID, vision_feature_layer=llava.feature_layer, vision_feature_select_strategy="default",
        projector_hidden_act="gelu", tie_word_embeddings=text.config.tie_word_embeddings, attn_implementation="eager",
    )
    if aspect == "anyres":
        pinpoints = [[height, width] for width, height in llava.grid_pinpoints]
        whole = LlavaNextForConditionalGeneration(LlavaNextConfig(image_grid_pinpoints=pinpoints, **shared))
        whole.model.image_newline.copy_(llava.image_newline)
    else:
        whole = LlavaForConditionalGeneration(LlavaConfig(**shared))
    whole.eval().requires_grad_(False)
    whole.model.vision_tower.load_state_dict(llava.vision_tower.state_dict())
    whole.model.multi_modal_projector.load_state_dict(llava.projector.state_dict())
    whole.model.language_model.load_state_dict(text.model.state_dict())
    whole.lm_head.weight.copy_(text.lm_head.weight)

    tiles = [llava.pixels(picture, aspect)[0] for picture in pictures]
    if aspect == "anyres":
        most = max(len(tile) for tile in tiles)
        padded = [torch.cat([tile, torch.zeros(most - len(tile), *tile.shape[1:])]) for tile in tiles]
        inputs = {"pixel_values": torch.stack(padded),
                  "image_sizes": torch.tensor([[picture.size[1], picture.size[0]] for picture in pictures])}
    else:
        inputs = {"pixel_values": torch.cat(tiles)}

    features = iter([llava.image_features(picture, aspect) for picture in pictures])
    ids = []
    for token in tokens + greedy:
        ids += [HF_IMAGE_ID] * len(next(features)) if token == IMAGE_TOKEN else [token]
    logits = whole(input_ids=torch.tensor([ids]), **inputs).logits[0]
    return logits[-1 - len(greedy)], logits[-1]


def check_preprocessing(pictures, sizes, pinpoints):
    """reference.py's pixels against transformers' CLIPImageProcessor (Pillow variant)."""
    for size in sizes:
        processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
        for one in pictures.values():
            for image in (one, pad_to_square(one), *anyres_tiles(one, size, pinpoints)[0]):
                theirs = torch.as_tensor(processor.preprocess(image, return_tensors="pt")["pixel_values"][0])
                assert_close(clip_preprocess(image, size), theirs, 1e-6, "pixels against CLIPImageProcessor", image.size)


# ---- main ------------------------------------------------------------------------------------------------------

PYRAMIDS = {
    # λ = 0.5 in 2, 3, 4 and 5 stages of a 6-layer decoder
    "2_stages": ([3], [0.5]),
    "3_stages": ([2, 4], [0.5, 0.25]),
    "4_stages": ([1, 3, 5], [0.5, 0.25, 0.125]),
    "5_stages": ([1, 2, 3, 4], [0.5, 0.25, 0.125, 0.0625]),
    "unequal": ([2, 5], [0.7, 0.3]),
    "to_one": ([2, 4], [0.4, 0.04]),
    "withdrawn": ([3], [0.0]),
    "half_then_withdrawn": ([2, 4], [0.5, 0.0]),
    "same_twice": ([1, 4], [0.6, 0.6]),
}

PINPOINTS = [(56, 112), (112, 56), (112, 112), (168, 56), (56, 168)]


def main(directory):
    # Pillow 12.2 and 13.0 changed the order of the two passes of a resize for some shapes, and with it the roundings.
    # The models were trained with the old order.
    if tuple(int(part) for part in PIL.__version__.split(".")[:2]) >= (12, 2):
        sys.exit("make_parity.py needs Pillow before 12.2")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.makedirs(directory, exist_ok=True)

    pictures = {}
    for name, seed, width, height in (
        ("wide.png", 1, 100, 60), ("tall.png", 2, 45, 80), ("square.png", 3, 64, 64), ("tile.png", 4, 56, 56),
        ("large.png", 5, 150, 130), ("panorama.png", 6, 210, 50), ("tower.png", 7, 40, 170), ("odd.png", 8, 97, 89),
    ):
        pictures[name] = picture(seed, width, height)
        write_atomically(os.path.join(directory, name), lambda path, one=pictures[name]: one.save(path, "PNG", optimize=True))
    check_preprocessing(pictures, (56, 84), PINPOINTS)

    models = {}

    def add_text(name, seed=1, **options):
        models[name] = text_model(name, seed, **options)
        write_atomically(os.path.join(directory, name + ".gguf"), lambda path: write_text_gguf(path, models[name], name))

    def add_vision(name, text, size, act, layout, newline=False):
        hidden = models[text].config.hidden_size
        tower, projector = vision_model(name, 1, size, act, hidden)
        row = None
        if newline:
            generator = np.random.Generator(np.random.PCG64([1, zlib.crc32(b"image_newline")]))
            row = torch.from_numpy((0.5 * generator.standard_normal(hidden)).astype(np.float32))
        llava = Llava(models[text], tower, projector, row, PINPOINTS if newline else None)
        file = f"{name}-mmproj.gguf"
        write_atomically(os.path.join(directory, file), lambda path: write_mmproj_gguf(path, llava, name, layout))
        return llava

    add_text("mha")
    add_text("gqa", kv_heads=2, tied=True, theta=500000.0)
    add_text("qwen2", seed=4, arch="qwen2", kv_heads=2, tied=True, theta=1000000.0, eps=1e-6)
    add_text("linear", layers=2, hidden=32, heads=2, kv_heads=2, ffn=64, rope={"rope_type": "linear", "factor": 4.0})
    add_text("llama3", layers=2, hidden=32, heads=2, kv_heads=1, ffn=64, theta=500000.0,
             rope={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 64})
    add_text("yarn", layers=2, hidden=32, heads=2, kv_heads=2, ffn=64,
             rope={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512})
    add_text("head_dim", layers=2, hidden=48, heads=4, kv_heads=2, ffn=64, head_dim=16)

    llavas = {
        "mha": add_vision("mha", "mha", 56, "quick_gelu", "feature_layer"),
        "gqa": add_vision("gqa", "gqa", 84, "gelu", "all_layers"),
        "qwen2": add_vision("qwen2", "qwen2", 84, "quick_gelu", "legacy"),
        "next": add_vision("next", "mha", 56, "quick_gelu", "feature_layer", newline=True),
    }
    legacy = os.path.join(directory, "mha-legacy-mmproj.gguf")
    write_atomically(legacy, lambda path: write_mmproj_gguf(path, llavas["mha"], "mha-legacy", "legacy"))

    cases = []

    def add(name, key, pattern, images=(), layers=(), ratios=(), positions="compact", aspect="pad", mmproj=None):
        llava = llavas.get(key) or Llava(models[key])
        model = "mha" if key == "next" else key
        arch = "qwen2" if key == "qwen2" else "llama"
        if mmproj is None and llava.vision_tower is not None:
            mmproj = f"{key}-mmproj.gguf"
        cases.append(make_case(name, llava, model + ".gguf", mmproj, arch, pattern, list(images), pictures,
                               Policy(list(layers), list(ratios), positions), aspect))

    for key in ("mha", "gqa", "qwen2"):
        begin = "" if key == "qwen2" else "b "
        add(f"{key}_dense", key, begin + "5 i 7", ["wide.png"])
        add(f"{key}_text_only", key, begin + "20", layers=[2, 4], ratios=[0.5, 0.25])
        add(f"{key}_text_only_dense", key, begin + "12")
        for pyramid, (layers, ratios) in PYRAMIDS.items():
            add(f"{key}_{pyramid}", key, begin + "5 i 7", ["wide.png"], layers, ratios)
        add(f"{key}_original", key, begin + "4 i 9", ["tall.png"], [2, 4], [0.5, 0.25], "original")
        add(f"{key}_original_withdrawn", key, begin + "4 i 9", ["odd.png"], [3], [0.0], "original")
        add(f"{key}_image_first", key, "i 8", ["square.png"], [2, 4], [0.5, 0.25])
        add(f"{key}_image_last", key, begin + "6 i", ["square.png"], [2, 4], [0.5, 0.25])
        add(f"{key}_two_images_dense", key, begin + "3 i 4 i 6", ["wide.png", "tall.png"])
        add(f"{key}_two_images", key, begin + "3 i 4 i 6", ["wide.png", "tall.png"], [2, 4], [0.5, 0.25])
        add(f"{key}_two_images_original", key, begin + "3 i i 6", ["large.png", "tower.png"], [1, 3, 5],
            [0.5, 0.25, 0.125], "original")
    add("mha_square", "mha", "b 5 i 7", ["large.png"], [2, 4], [0.5, 0.25], aspect="square")
    add("mha_legacy", "mha", "b 5 i 7", ["wide.png"], [2, 4], [0.5, 0.25], mmproj="mha-legacy-mmproj.gguf")

    for image in ("wide.png", "tall.png", "large.png", "panorama.png", "tower.png"):
        shape = image.removesuffix(".png")
        add(f"next_{shape}_dense", "next", "b 5 i 7", [image], aspect="anyres")
        add(f"next_{shape}", "next", "b 5 i 7", [image], [1, 3, 5], [0.5, 0.25, 0.125], aspect="anyres")
    for image in ("odd.png", "panorama.png"):
        shape = image.removesuffix(".png")
        add(f"next_{shape}_original", "next", "b 5 i 7", [image], [2, 4], [0.5, 0.25], "original", aspect="anyres")
    add("next_two_images", "next", "b 3 i 4 i 6", ["tile.png", "tower.png"], [2, 4], [0.5, 0.25], aspect="anyres")
    add("next_two_images_dense", "next", "b 3 i 4 i 6", ["tile.png", "tower.png"], aspect="anyres")

    for key in ("linear", "llama3", "yarn", "head_dim"):
        add(key, key, "b 60")

    # What the vision half alone must compute, for every picture that a case shows to a mmproj.
    features = []
    for mmproj, image, aspect in sorted({(case["mmproj"], image, case["aspect"]) for case in cases for image in case["images"]}):
        llava = llavas[mmproj.split("-")[0]]
        tiles, grid = llava.pixels(pictures[image], aspect)
        tokens = llava.image_features(pictures[image], aspect)
        file = f"{mmproj.removesuffix('.gguf')}.{image.removesuffix('.png')}.{aspect}.f32"
        write_atomically(os.path.join(directory, file), tokens.numpy().astype("<f4").tofile)
        features.append({"mmproj": mmproj, "image": image, "aspect": aspect, "n_tiles": len(tiles), "grid": grid,
                         "n_tokens": tokens.shape[0], "n_embd": tokens.shape[1], "file": file})

    def write_list(name, entries):
        def write(path):
            with open(path, "w", encoding="ascii", newline="\n") as file:
                file.write("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")

        write_atomically(os.path.join(directory, name), write)

    write_list("cases.json", cases)
    write_list("features.json", features)
    print(f"{len(cases)} cases")
    for what, difference in worst.items():
        print(f"{what}: at most {difference:.1e} of the largest value")


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "parity"))
