"""A PyramidDrop training step in PyTorch: the reference that gradients of the C library are measured against.

It follows docs/algorithm.md on transformers' own LLaMA, Qwen2 and CLIP blocks, one sample at a time and without padding;
gradients are autograd's. Ranking stands outside the graph.

    batch = [Sample(tokens, labels, [(tiles, grid, picture.size)])]
    passes = [sample_pass(llava, policy, sample) for sample in batch]
    loss = batch_loss(passes)
    loss.backward()

Everything runs in the models' own precision: double_precision() gives a copy that rounds nowhere to float32.
"""

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional
from transformers import Qwen2Config
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from reference import TEXT

IGNORE = -100  # LLaVA's IGNORE_INDEX: a row that nothing is to be learnt for


@dataclass
class Sample:
    tokens: list  # IMAGE_TOKEN where an image stands
    labels: list  # one a token: the token itself where it is to be learnt, else IGNORE
    images: list  # of each image: tiles [n, 3, size, size], grid (columns, rows) or None, (width, height)


# ---- forward ---------------------------------------------------------------------------------------------------


@dataclass
class SamplePass:
    """What one sample's forward pass gave."""

    loss: torch.Tensor = None  # sum over the predicted labels, in nats
    n_predicted: int = 0
    rows_per_stage: list = field(default_factory=list)
    image_tokens: list = field(default_factory=list)  # N of every image
    kept: list = field(default_factory=list)  # [image][stage]: its live tokens, 0 … N-1, ascending
    scores: list = field(default_factory=list)  # [image][drop]: of the tokens that were live before that drop
    ends: list = field(default_factory=list)  # [drop]: rows, before that drop, that end an instruction
    margins: list = field(default_factory=list)  # one figure a cut: (last kept - first dropped) / last kept


def sample_pass(llava, policy, sample):
    decoder = llava.language_model.model
    policy.check(len(decoder.layers))
    dtype = decoder.embed_tokens.weight.dtype
    features = [llava.image_tokens(tiles.to(dtype), grid, size) for tiles, grid, size in sample.images]
    rows, image_of_row = llava.embed(sample.tokens, features)

    # Labels of rows: those of an image are ignored.
    widths = iter([len(feature) for feature in features])
    labels = []
    for token, label in zip(sample.tokens, sample.labels, strict=True):
        labels += [label] if token >= 0 else [IGNORE] * next(widths)
    labels = torch.tensor(labels)
    positions = torch.arange(len(labels))
    image_of_row = torch.tensor(image_of_row)
    n_images = len(features)
    index_of_row = torch.zeros(len(labels), dtype=torch.long)
    for image, feature in enumerate(features):
        index_of_row[image_of_row == image] = torch.arange(len(feature))

    result = SamplePass(image_tokens=[len(feature) for feature in features])
    result.kept = [[] for _ in range(n_images)]
    result.scores = [[] for _ in range(n_images)]

    def start_stage():
        result.rows_per_stage.append(len(labels))
        for image in range(n_images):
            result.kept[image].append(index_of_row[image_of_row == image].tolist())

    start_stage()
    for layer in range(len(decoder.layers)):
        if layer in policy.layer_list:
            drop = policy.layer_list.index(layer)
            ends = ends_of_instructions(labels)
            result.ends.append(ends.tolist())
            if n_images > 0 and len(ends) > 0:  # else the sample stays whole
                score = rank(decoder, layer, rows, positions, ends)
                live = image_of_row == TEXT
                for image, feature in enumerate(features):
                    n_keep = int(len(feature) * policy.image_token_ratio_list[drop])
                    own = (image_of_row == image).nonzero().flatten()
                    live[own[select(result, image, score[own], n_keep)]] = True
                rows, positions, labels = rows[live], positions[live], labels[live]
                image_of_row, index_of_row = image_of_row[live], index_of_row[live]
                if policy.positions == "compact":
                    positions = torch.arange(len(labels))
            start_stage()
        rows = run_layer(decoder, layer, rows, positions)

    # Row r predicts the label of row r + 1, of the rows that are left.
    logits = llava.language_model.lm_head(decoder.norm(rows))[:-1]
    result.n_predicted = int((labels[1:] != IGNORE).sum())
    result.loss = functional.cross_entropy(logits, labels[1:], ignore_index=IGNORE, reduction="sum")
    return result


def ends_of_instructions(labels):
    """Rows that are ignored and stand right before one that is not."""
    ignored = labels == IGNORE
    return (ignored[:-1] & ~ignored[1:]).nonzero().flatten()


def causal_mask(n, dtype):
    return torch.full((n, n), torch.finfo(torch.float32).min, dtype=dtype).triu(1)


@torch.no_grad()
def rank(decoder, layer, rows, positions, ends):
    """[n] scores: the attention of the rows `ends` to every row in `layer`, which has not run yet; the mean over ends and
    heads. A row behind an end has no share in it."""
    block = decoder.layers[layer]
    attention = block.self_attn
    n = len(rows)
    normed = block.input_layernorm(rows[None])
    query = attention.q_proj(normed[:, ends]).view(1, len(ends), -1, attention.head_dim).transpose(1, 2)
    keys = attention.k_proj(normed).view(1, n, -1, attention.head_dim).transpose(1, 2)
    cos, sin = decoder.rotary_emb(normed, positions[None])
    query, _ = apply_rotary_pos_emb(query, query, cos[:, ends], sin[:, ends])
    keys, _ = apply_rotary_pos_emb(keys, keys, cos, sin)
    keys = repeat_kv(keys, attention.num_key_value_groups)
    logits = query @ keys.transpose(2, 3) / math.sqrt(attention.head_dim) + causal_mask(n, rows.dtype)[ends]
    return torch.softmax(logits, dim=-1)[0].mean(dim=(0, 1))


def select(result, image, score, n_keep):
    """The n_keep highest scores' places, ascending; of equal scores the earlier."""
    result.scores[image].append(score.tolist())
    order = torch.sort(score, descending=True, stable=True).indices
    if 0 < n_keep < len(score):
        last_kept, first_dropped = score[order[n_keep - 1]].item(), score[order[n_keep]].item()
        # Tokens that no end sees have exactly 0, in any arithmetic: their tie is clear.
        if last_kept > 0:
            result.margins.append((last_kept - first_dropped) / last_kept)
    return order[:n_keep].sort().values


def run_layer(decoder, layer, rows, positions):
    return decoder.layers[layer](
        rows[None],
        attention_mask=causal_mask(len(rows), rows.dtype)[None, None],
        position_ids=positions[None],
        position_embeddings=decoder.rotary_emb(rows[None], positions[None]),
    )[0]


def batch_loss(passes, n_predicted=None):
    """The sum over all predicted labels, by their number: in these passes, or in all that one optimiser step gathers."""
    if n_predicted is None:
        n_predicted = sum(one.n_predicted for one in passes)
    return sum(one.loss for one in passes) / n_predicted


# ---- double precision ------------------------------------------------------------------------------------------


class ExactRMSNorm(torch.nn.Module):
    """transformers' RMSNorm without its detour through float32."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, rows):
        return self.weight * (rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + self.eps))


class ExactRotaryEmbedding(torch.nn.Module):
    """cos and sin in double precision, unscaled RoPE only."""

    def __init__(self, config, head_dim):
        super().__init__()
        assert config.rope_parameters["rope_type"] == "default"
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
        self.frequencies = config.rope_parameters["rope_theta"] ** -exponents

    def forward(self, rows, positions):
        angles = positions[..., None].double() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()


def double_precision(llava):
    """A copy of llava whose every operation is float64: its gradients are the true ones, to 1e-12 or so."""
    llava = copy.deepcopy(llava)
    model = llava.language_model.double()
    decoder = model.model
    # Eager attention takes its softmax in float32; sdpa does not.
    model.set_attn_implementation("sdpa")
    for layer in decoder.layers:
        layer.input_layernorm = ExactRMSNorm(layer.input_layernorm)
        layer.post_attention_layernorm = ExactRMSNorm(layer.post_attention_layernorm)
    decoder.norm = ExactRMSNorm(decoder.norm)
    decoder.rotary_emb = ExactRotaryEmbedding(model.config, decoder.layers[0].self_attn.head_dim)
    if llava.vision_tower is not None:
        llava.vision_tower.double().set_attn_implementation("sdpa")
        llava.projector.double()
    if llava.image_newline is not None:
        llava.image_newline = llava.image_newline.double()
    return llava


# ---- parameters, under their GGUF names -------------------------------------------------------------------------


@dataclass
class Parameter:
    name: str  # of the tensor in its GGUF file
    tensor: torch.Tensor  # transformers' own
    group: str  # "decoder", "projector" or "vision": whose learning rate it has
    decays: bool  # whether weight decay applies
    heads: int = 0  # of W_q and W_k rows that GGUF stores in another order; 0 where the order is the same

    def to_gguf(self, values):
        """Values shaped like the tensor (or, for LoRA's B, with as many rows), flat in the file's order."""
        if self.heads:
            rows = values.shape[0]
            values = values.reshape(self.heads, 2, rows // self.heads // 2, -1).transpose(1, 2)
        return values.reshape(-1)

    def from_gguf(self, values):
        """The inverse of to_gguf."""
        shape = self.tensor.shape
        if not self.heads:
            return values.reshape(shape)
        return values.reshape(self.heads, shape[0] // self.heads // 2, 2, -1).transpose(1, 2).reshape(shape)


def parameters(llava, legacy_names=False):
    """Every trainable parameter, the text model's first, in the order of the files. legacy_names: the vision tower's ffn_up
    and ffn_down bear each other's names."""
    model, config = llava.language_model, llava.language_model.config
    halves = not isinstance(config, Qwen2Config)  # llama's W_q and W_k are stored for interleaved RoPE
    entries = [Parameter("token_embd.weight", model.model.embed_tokens.weight, "decoder", True)]
    for index, layer in enumerate(model.model.layers):
        attention, block = layer.self_attn, f"blk.{index}."
        entries.append(Parameter(block + "attn_norm.weight", layer.input_layernorm.weight, "decoder", False))
        for name, linear, heads in (
            ("attn_q", attention.q_proj, config.num_attention_heads), ("attn_k", attention.k_proj, config.num_key_value_heads),
            ("attn_v", attention.v_proj, 0), ("attn_output", attention.o_proj, 0),
        ):
            entries.append(Parameter(block + name + ".weight", linear.weight, "decoder", True, heads if halves else 0))
            if linear.bias is not None:
                entries.append(Parameter(block + name + ".bias", linear.bias, "decoder", False))
        entries.append(Parameter(block + "ffn_norm.weight", layer.post_attention_layernorm.weight, "decoder", False))
        mlp = layer.mlp
        for name, linear in (("ffn_gate", mlp.gate_proj), ("ffn_up", mlp.up_proj), ("ffn_down", mlp.down_proj)):
            entries.append(Parameter(block + name + ".weight", linear.weight, "decoder", True))
    entries.append(Parameter("output_norm.weight", model.model.norm.weight, "decoder", False))
    if not config.tie_word_embeddings:
        entries.append(Parameter("output.weight", model.lm_head.weight, "decoder", True))

    # LLaVA's optimiser goes by names in its own modules: "mm_projector" and "vision_tower" have their learning rates, and
    # only layer norms and biases escape weight decay. So image_newline counts as the decoder's, and decays.
    if llava.image_newline is not None:
        entries.append(Parameter("model.image_newline", llava.image_newline, "decoder", True))
    for index, linear in ((0, llava.projector.linear_1), (2, llava.projector.linear_2)):
        entries.append(Parameter(f"mm.{index}.weight", linear.weight, "projector", True))
        entries.append(Parameter(f"mm.{index}.bias", linear.bias, "projector", False))
    tower = llava.vision_tower
    entries.append(Parameter("v.class_embd", tower.embeddings.class_embedding, "vision", True))
    entries.append(Parameter("v.patch_embd.weight", tower.embeddings.patch_embedding.weight, "vision", True))
    entries.append(Parameter("v.position_embd.weight", tower.embeddings.position_embedding.weight, "vision", True))
    entries.append(Parameter("v.pre_ln.weight", tower.pre_layrnorm.weight, "vision", False))
    entries.append(Parameter("v.pre_ln.bias", tower.pre_layrnorm.bias, "vision", False))
    fc1, fc2 = ("ffn_down", "ffn_up") if legacy_names else ("ffn_up", "ffn_down")
    n_used = tower.config.num_hidden_layers + 1 + llava.feature_layer  # layers behind it have no part in the loss
    for index, layer in enumerate(tower.encoder.layers[:n_used]):
        attention = layer.self_attn
        for name, module in (
            ("attn_q", attention.q_proj), ("attn_k", attention.k_proj), ("attn_v", attention.v_proj),
            ("attn_out", attention.out_proj), ("ln1", layer.layer_norm1), ("ln2", layer.layer_norm2),
            (fc1, layer.mlp.fc1), (fc2, layer.mlp.fc2),
        ):
            decays = not name.startswith("ln")
            entries.append(Parameter(f"v.blk.{index}.{name}.weight", module.weight, "vision", decays))
            entries.append(Parameter(f"v.blk.{index}.{name}.bias", module.bias, "vision", False))
    for entry in entries:
        entry.tensor.requires_grad_(True)
    return entries


# ---- LoRA ------------------------------------------------------------------------------------------------------


class LoraLinear(torch.nn.Module):
    """x W' + (alpha / r) x A' B' + bias, W and bias frozen."""

    def __init__(self, linear, a, b, scale):
        super().__init__()
        self.linear, self.scale = linear, scale
        self.a, self.b = torch.nn.Parameter(a), torch.nn.Parameter(b)

    def forward(self, rows):
        return self.linear(rows) + self.scale * functional.linear(functional.linear(rows, self.a), self.b)

    def merged(self):
        return self.linear.weight + self.scale * self.b @ self.a


def add_lora(llava, entries, rank, alpha):
    """Adapters on every linear layer of the decoder, the output matrix excepted. Everything else but the projector is
    frozen, as in LLaVA. Returns [(the adapted matrix's entry, its LoraLinear)] and the parameters to train."""
    by_tensor = {id(entry.tensor): entry for entry in entries}
    for entry in entries:
        entry.tensor.requires_grad_(entry.group == "projector")
    adapted, trained = [], []
    for layer in llava.language_model.model.layers:
        for module, names in ((layer.self_attn, ("q_proj", "k_proj", "v_proj", "o_proj")),
                              (layer.mlp, ("gate_proj", "up_proj", "down_proj"))):
            for name in names:
                linear = getattr(module, name)
                entry = by_tensor[id(linear.weight)]
                n_out, n_in = linear.weight.shape
                a = torch.from_numpy(lora_initial(2 * len(adapted), (rank, n_in), 0.125))
                b = torch.from_numpy(lora_initial(2 * len(adapted) + 1, (n_out, rank), 0.1))
                lora_b = Parameter(entry.name + ".lora_b", b, "decoder", True, entry.heads)
                lora = LoraLinear(linear, a.to(linear.weight.dtype), lora_b.from_gguf(b).to(linear.weight.dtype), alpha / rank)
                setattr(module, name, lora)
                lora_b.tensor = lora.b
                trained += [Parameter(entry.name + ".lora_a", lora.a, "decoder", True), lora_b]
                adapted.append((entry, lora))
    return adapted, trained + [entry for entry in entries if entry.group == "projector"]


def lora_initial(index, shape, width):
    """Uniform in [-width, width), from SplitMix64 of seed 1000 + index, in the file's order."""
    uniform = (splitmix64(1000 + index, math.prod(shape)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return ((2.0 * uniform - 1.0) * width).astype(np.float32).reshape(shape)


# ---- compact goldens --------------------------------------------------------------------------------------------

N_PROJECTIONS = 8
N_ELEMENTS = 64


def splitmix64(seed, n):
    """The first n draws of the generator in src/base/random.h."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def signs(seed, n):
    """n signs: element i is -1 where bit i % 64 of draw i / 64 is set, else +1."""
    draws = splitmix64(seed, (n + 63) // 64)
    bits = np.unpackbits(draws.astype("<u8").view(np.uint8), bitorder="little")[:n]
    return 1.0 - 2.0 * bits.astype(np.float64)


def compact(values):
    """float64 [n] -> [norm, the dot products with signs(1 … 8), 64 elements, or all where there are no more]."""
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    projections = [float(signs(seed, n) @ values) for seed in range(1, N_PROJECTIONS + 1)]
    places = np.arange(n) if n <= N_ELEMENTS else (splitmix64(0, N_ELEMENTS) % np.uint64(n)).astype(np.int64)
    return np.concatenate([[np.linalg.norm(values)], projections, values[places]])
