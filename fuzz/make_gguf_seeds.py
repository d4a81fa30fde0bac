"""Makes fuzz/seeds/gguf: GGUF pairs of a few kB, as fuzz_gguf.c wants them (length of the text model, text model, mmproj).

    python make_gguf_seeds.py [OUTPUT_DIRECTORY]

Needs the packages gguf and numpy. Every run writes the same bytes.
"""

import os
import struct
import sys
import tempfile

import gguf
import numpy as np

N_HEADS, N_LAYERS = 2, 2
VISION_EMBD, VISION_FF = 4, 6
IMAGE_SIZE, PATCH_SIZE = 6, 2


class Weights:
    """Tensors in order, of small numbers."""

    def __init__(self, writer, seed):
        self.writer, self.generator = writer, np.random.Generator(np.random.PCG64(seed))

    def add(self, name, *shape, kind=gguf.GGMLQuantizationType.F32):
        values = self.generator.standard_normal(shape, dtype=np.float32) / np.float32(4)
        if name.endswith("norm.weight") or ".ln" in name or "pre_ln" in name:
            values += 1
        self.writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def byte_letter(value):
    """GPT-2's printable character for a byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return chr(value) if value in printable else chr(256 + others.index(value))


def add_spm(writer):
    kinds = gguf.TokenType
    tokens = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL), ("<0x0A>", kinds.BYTE)]
    tokens += [(text, kinds.NORMAL) for text in ("▁", "a", "b", "▁a", "▁b", "ab", "USER", ":")]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([-float(rank) for rank in range(len(tokens))])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    return len(tokens)


def add_bpe(writer):
    space = byte_letter(32)
    tokens = [byte_letter(value) for value in (10, 32, 58, 97, 98)] + [space + "a", "ab", "<|im_start|>", "<|im_end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if text.startswith("<") else gguf.TokenType.NORMAL for text in tokens])
    writer.add_token_merges([f"{space} a", "a b"])
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{'<|im_start|>'}}")
    return len(tokens)


def write_text(path, arch, kv_heads=N_HEADS, tied=False, rope=None, n_embd=8, kind=gguf.GGMLQuantizationType.F32):
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(256)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(n_embd)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    if rope:
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope))
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(64)
    n_vocab = add_spm(writer) if arch == "llama" else add_bpe(writer)
    weights = Weights(writer, 1)
    n_q, n_kv, n_ff = n_embd, kv_heads * n_embd // N_HEADS, n_embd
    weights.add("token_embd.weight", n_vocab, n_embd, kind=kind)
    weights.add("output_norm.weight", n_embd)
    if not tied:
        weights.add("output.weight", n_vocab, n_embd, kind=kind)
    for i in range(N_LAYERS):
        weights.add(f"blk.{i}.attn_norm.weight", n_embd)
        weights.add(f"blk.{i}.attn_q.weight", n_q, n_embd, kind=kind)
        weights.add(f"blk.{i}.attn_k.weight", n_kv, n_embd, kind=kind)
        weights.add(f"blk.{i}.attn_v.weight", n_kv, n_embd, kind=kind)
        weights.add(f"blk.{i}.attn_output.weight", n_embd, n_q, kind=kind)
        if arch == "qwen2":
            weights.add(f"blk.{i}.attn_q.bias", n_q)
            weights.add(f"blk.{i}.attn_k.bias", n_kv)
            weights.add(f"blk.{i}.attn_v.bias", n_kv)
        weights.add(f"blk.{i}.ffn_norm.weight", n_embd)
        weights.add(f"blk.{i}.ffn_gate.weight", n_ff, n_embd, kind=kind)
        weights.add(f"blk.{i}.ffn_up.weight", n_ff, n_embd, kind=kind)
        weights.add(f"blk.{i}.ffn_down.weight", n_embd, n_ff, kind=kind)
    finish(writer)


def write_mmproj(path, n_embd=8, anyres=False, legacy=False):
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", legacy)
    for name, value in (("image_size", IMAGE_SIZE), ("patch_size", PATCH_SIZE), ("embedding_length", VISION_EMBD),
                        ("feed_forward_length", VISION_FF), ("block_count", 1), ("attention.head_count", 2)):
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.25, 0.25, 0.25])
    if not legacy:
        writer.add_array("clip.vision.feature_layer", [1])
    weights = Weights(writer, 2)
    if anyres:
        writer.add_array("clip.vision.image_grid_pinpoints", [IMAGE_SIZE, 2 * IMAGE_SIZE, 2 * IMAGE_SIZE, IMAGE_SIZE])
        writer.add_string("clip.vision.mm_patch_merge_type", "spatial_unpad")
        weights.add("model.image_newline", n_embd)
    weights.add("v.class_embd", VISION_EMBD)
    weights.add("v.patch_embd.weight", VISION_EMBD, 3, PATCH_SIZE, PATCH_SIZE)
    weights.add("v.position_embd.weight", 1 + (IMAGE_SIZE // PATCH_SIZE) ** 2, VISION_EMBD)
    weights.add("v.pre_ln.weight", VISION_EMBD)
    weights.add("v.pre_ln.bias", VISION_EMBD)
    up, down = ("ffn_down", "ffn_up") if legacy else ("ffn_up", "ffn_down")
    for name, n_out, n_in in (("attn_q", VISION_EMBD, VISION_EMBD), ("attn_k", VISION_EMBD, VISION_EMBD),
                              ("attn_v", VISION_EMBD, VISION_EMBD), ("attn_out", VISION_EMBD, VISION_EMBD),
                              (up, VISION_FF, VISION_EMBD), (down, VISION_EMBD, VISION_FF)):
        weights.add(f"v.blk.0.{name}.weight", n_out, n_in)
        weights.add(f"v.blk.0.{name}.bias", n_out)
    for name in ("ln1", "ln2"):
        weights.add(f"v.blk.0.{name}.weight", VISION_EMBD)
        weights.add(f"v.blk.0.{name}.bias", VISION_EMBD)
    weights.add("mm.0.weight", n_embd, VISION_EMBD)
    weights.add("mm.0.bias", n_embd)
    weights.add("mm.2.weight", n_embd, n_embd)
    weights.add("mm.2.bias", n_embd)
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    output = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "seeds", "gguf")
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    pairs = {
        "llama": (dict(arch="llama"), dict()),
        "llama_q8_0": (dict(arch="llama", tied=True, n_embd=32, kind=q8_0), None),
        "llama_gqa_anyres": (dict(arch="llama", kv_heads=1), dict(anyres=True)),
        "llama_yarn_legacy": (dict(arch="llama", rope="yarn"), dict(legacy=True)),
        "qwen2": (dict(arch="qwen2", kv_heads=1), dict()),
    }
    os.makedirs(output, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, (text, mmproj) in pairs.items():
            path = os.path.join(folder, "file.gguf")
            write_text(path, **text)
            seed = open(path, "rb").read()
            seed = struct.pack("<I", len(seed)) + seed
            if mmproj is not None:
                write_mmproj(path, **mmproj)
                seed += open(path, "rb").read()
            with open(os.path.join(output, name), "wb") as file:
                file.write(seed)


main()
