"""PyramidDrop inference in PyTorch, float32: the reference the C library is measured against.

It follows docs/algorithm.md word by word on transformers' own LLaMA, Qwen2 and CLIP blocks. It is written to be read,
not to be fast: one sample, explicit masks, everything recomputed that need not be remembered.

    llava = Llava(language_model, vision_tower, projector, image_newline, grid_pinpoints)
    rows, image_of_row = llava.embed(tokens, [llava.image_features(picture, "pad") for picture in pictures])
    session = Session(language_model, Policy([8, 16, 24], [0.5, 0.25, 0.125]))
    logits = session.prefill(rows, image_of_row)
    logits = session.step(int(logits.argmax()))
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

IMAGE_TOKEN = -200  # LLaVA's IMAGE_TOKEN_INDEX: where an image stands among token ids
TEXT = -1  # the "image" of a text row

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


# ---- policy ----------------------------------------------------------------------------------------------------


@dataclass
class Policy:
    """After layer_list[i] executed layers, int(N * image_token_ratio_list[i]) of an image's N tokens stay."""

    layer_list: list = field(default_factory=list)
    image_token_ratio_list: list = field(default_factory=list)
    positions: str = "compact"  # or "original"

    def check(self, n_layers):
        assert len(self.layer_list) == len(self.image_token_ratio_list)
        assert all(1 <= layer < n_layers for layer in self.layer_list)
        assert all(a < b for a, b in zip(self.layer_list, self.layer_list[1:]))
        assert all(0 <= ratio <= 1 for ratio in self.image_token_ratio_list)
        assert all(a >= b for a, b in zip(self.image_token_ratio_list, self.image_token_ratio_list[1:]))
        assert self.positions in ("compact", "original")


# ---- the decoder with drops ------------------------------------------------------------------------------------


class Session:
    """One prompt through a LlamaForCausalLM or Qwen2ForCausalLM, and greedy steps after it.

    After prefill:
        rows_per_stage   live rows of every stage
        kept             [image][stage]: which of the image's tokens (0 … N-1, ascending) were live
        scores           [image][drop]: the scores of the tokens that were live before that drop
        margins          one figure a cut: (last kept - first dropped) / last kept
    """

    def __init__(self, language_model, policy=None):
        self.decoder = language_model.model
        self.lm_head = language_model.lm_head
        self.config = language_model.config
        self.policy = policy or Policy()
        self.policy.check(len(self.decoder.layers))

    @torch.no_grad()
    def prefill(self, rows, image_of_row):
        """rows: [n, hidden] embeddings; image_of_row: n numbers, TEXT or the row's image. Returns logits [n_vocab]."""
        self.cache = DynamicCache()
        self.n_prompt = rows.shape[0]
        self.n_generated = 0
        n_images = max(image_of_row, default=TEXT) + 1

        image_of_row = torch.tensor(image_of_row)
        index_of_row = torch.zeros(len(image_of_row), dtype=torch.long)  # of image rows: which of the image's tokens
        for image in range(n_images):
            of_image = image_of_row == image
            index_of_row[of_image] = torch.arange(int(of_image.sum()))
        n_tokens = [int((image_of_row == image).sum()) for image in range(n_images)]
        positions = torch.arange(self.n_prompt)

        self.rows_per_stage = []
        self.kept = [[] for _ in range(n_images)]
        self.scores = [[] for _ in range(n_images)]
        self.margins = []

        def start_stage():
            self.rows_per_stage.append(rows.shape[0])
            for image in range(n_images):
                self.kept[image].append(index_of_row[image_of_row == image].tolist())

        start_stage()
        for layer in range(len(self.decoder.layers)):
            if layer in self.policy.layer_list:
                drop = self.policy.layer_list.index(layer)
                score = self.rank(layer, rows, positions)
                live = image_of_row == TEXT
                for image in range(n_images):
                    n_keep = int(n_tokens[image] * self.policy.image_token_ratio_list[drop])
                    own = (image_of_row == image).nonzero().flatten()
                    live[own[self.select(image, score[own], n_keep)]] = True
                rows, positions = rows[live], positions[live]
                image_of_row, index_of_row = image_of_row[live], index_of_row[live]
                if self.policy.positions == "compact":
                    positions = torch.arange(rows.shape[0])
                start_stage()
            rows = self.run_layer(layer, rows, positions)
        return self.logits(rows[-1])

    def rank(self, layer, rows, positions):
        """[n] scores: the last row's attention to every row in `layer`, which has not run yet; mean over heads."""
        block = self.decoder.layers[layer]
        attention = block.self_attn
        n = rows.shape[0]
        normed = block.input_layernorm(rows[None])
        query = attention.q_proj(normed[:, -1:]).view(1, 1, -1, attention.head_dim).transpose(1, 2)
        keys = attention.k_proj(normed).view(1, n, -1, attention.head_dim).transpose(1, 2)
        cos, sin = self.decoder.rotary_emb(normed, positions[None])
        query, _ = apply_rotary_pos_emb(query, query, cos[:, -1:], sin[:, -1:])
        keys, _ = apply_rotary_pos_emb(keys, keys, cos, sin)
        keys = repeat_kv(keys, attention.num_key_value_groups)
        # The last row may see every row: no mask.
        probability = torch.softmax(query @ keys.transpose(2, 3) / math.sqrt(attention.head_dim), dim=-1)
        return probability[0, :, 0].mean(dim=0)

    def select(self, image, score, n_keep):
        """The n_keep highest scores' places, ascending; of equal scores the earlier."""
        self.scores[image].append(score.tolist())
        order = torch.sort(score, descending=True, stable=True).indices
        if 0 < n_keep < len(score):
            last_kept, first_dropped = score[order[n_keep - 1]].item(), score[order[n_keep]].item()
            self.margins.append((last_kept - first_dropped) / last_kept)
        return order[:n_keep].sort().values

    def run_layer(self, layer, rows, positions):
        """Rows through one decoder layer; its keys and values join the cache. Every row sees the cache and the rows
        up to itself."""
        n = rows.shape[0]
        n_cached = self.cache.get_seq_length(layer)
        mask = torch.full((n, n_cached + n), torch.finfo(torch.float32).min).triu(n_cached + 1)
        return self.decoder.layers[layer](
            rows[None],
            attention_mask=mask[None, None],
            position_ids=positions[None],
            past_key_values=self.cache,
            use_cache=True,
            position_embeddings=self.decoder.rotary_emb(rows[None], positions[None]),
        )[0]

    def logits(self, row):
        return self.lm_head(self.decoder.norm(row[None]))[0]

    @torch.no_grad()
    def step(self, token):
        """One generated token through every layer. Returns the logits [n_vocab] of the token after it."""
        row = self.decoder.embed_tokens(torch.tensor([token]))
        for layer in range(len(self.decoder.layers)):
            stage = sum(layer >= boundary for boundary in self.policy.layer_list)
            start = self.rows_per_stage[stage] if self.policy.positions == "compact" else self.n_prompt
            row = self.run_layer(layer, row, torch.tensor([start + self.n_generated]))
        self.n_generated += 1
        return self.logits(row[0])


# ---- pictures, as LLaVA prepares them --------------------------------------------------------------------------


def clip_preprocess(picture, size):
    """CLIPImageProcessor: shortest side to `size` (bicubic), centre crop, normalised. [3, size, size] float32."""
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    new_long = int(size * long / short)
    new_width, new_height = (size, new_long) if width <= height else (new_long, size)
    picture = picture.resize((new_width, new_height), Image.Resampling.BICUBIC)
    left, top = (new_width - size) // 2, (new_height - size) // 2
    picture = picture.crop((left, top, left + size, top + size))
    pixels = np.asarray(picture, dtype=np.float64) / 255
    pixels = (pixels - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))


def pad_to_square(picture):
    """LLaVA-1.5 ("pad"): the picture in the middle of a square of the mean colour."""
    width, height = picture.size
    side = max(width, height)
    square = Image.new("RGB", (side, side), tuple(int(mean * 255) for mean in CLIP_MEAN))
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square


def best_resolution(width, height, pinpoints):
    """LLaVA-NeXT ("anyres"): the grid that keeps most of the picture's pixels, and of these the least wasteful."""
    best, best_effective, best_wasted = None, 0, math.inf
    for grid_width, grid_height in pinpoints:
        scale = min(grid_width / width, grid_height / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        wasted = grid_width * grid_height - effective
        if effective > best_effective or (effective == best_effective and wasted < best_wasted):
            best, best_effective, best_wasted = (grid_width, grid_height), effective, wasted
    return best


def anyres_tiles(picture, size, pinpoints):
    """The whole picture squeezed to one tile, then the tiles of the grid, row by row. Also the grid (width, height)
    in tiles."""
    width, height = picture.size
    grid_width, grid_height = best_resolution(width, height, pinpoints)
    scale_width, scale_height = grid_width / width, grid_height / height
    if scale_width < scale_height:
        new_width, new_height = grid_width, min(math.ceil(height * scale_width), grid_height)
    else:
        new_width, new_height = min(math.ceil(width * scale_height), grid_width), grid_height
    canvas = Image.new("RGB", (grid_width, grid_height), (0, 0, 0))
    # Pillow's resize is bicubic unless told otherwise.
    canvas.paste(picture.resize((new_width, new_height)), ((grid_width - new_width) // 2, (grid_height - new_height) // 2))
    tiles = [picture.resize((size, size))]
    for top in range(0, grid_height, size):
        for left in range(0, grid_width, size):
            tiles.append(canvas.crop((left, top, left + size, top + size)))
    return tiles, (grid_width // size, grid_height // size)


def unpadded(features, width, height):
    """[hidden, rows, columns] without the rows or columns that show only padding around a width x height picture."""
    n_rows, n_columns = features.shape[1:]
    if width / height > n_columns / n_rows:
        padding = (n_rows - int(height * (n_columns / width))) // 2
        return features[:, padding : n_rows - padding]
    padding = (n_columns - int(width * (n_rows / height))) // 2
    return features[:, :, padding : n_columns - padding]


# ---- LLaVA -----------------------------------------------------------------------------------------------------


class Llava:
    """A language model with a CLIP ViT and a projector in front.

    vision_tower: CLIPVisionModel; projector: a module [n, vision hidden] -> [n, hidden]; feature_layer: which of the
    ViT's hidden states is used; image_newline: [hidden] and grid_pinpoints: [(width, height)] for LLaVA-NeXT.
    """

    def __init__(self, language_model, vision_tower=None, projector=None, image_newline=None, grid_pinpoints=None,
                 feature_layer=-2):
        self.language_model = language_model
        self.vision_tower = vision_tower
        self.projector = projector
        self.image_newline = image_newline
        self.grid_pinpoints = grid_pinpoints
        self.feature_layer = feature_layer

    def pixels(self, picture, aspect):
        """The tiles [n, 3, size, size] of a picture, and the grid (width, height) in tiles or None."""
        size = self.vision_tower.config.image_size
        if aspect == "pad":
            return clip_preprocess(pad_to_square(picture), size)[None], None
        if aspect == "square":
            return clip_preprocess(picture, size)[None], None
        assert aspect == "anyres"
        tiles, grid = anyres_tiles(picture, size, self.grid_pinpoints)
        return torch.stack([clip_preprocess(tile, size) for tile in tiles]), grid

    @torch.no_grad()
    def image_features(self, picture, aspect):
        """The image tokens [N, hidden] of a picture."""
        return self.image_tokens(*self.pixels(picture, aspect), picture.size)

    def image_tokens(self, tiles, grid, picture_size):
        """The same from pixels(), with gradients."""
        hidden_states = self.vision_tower(tiles, output_hidden_states=True).hidden_states
        features = self.projector(hidden_states[self.feature_layer][:, 1:])  # without the class token
        if grid is None:
            return features[0]
        columns, rows = grid
        side = self.vision_tower.config.image_size // self.vision_tower.config.patch_size
        # [rows, columns, y, x, hidden] -> [hidden, rows * y, columns * x]
        whole = features[1:].view(rows, columns, side, side, -1).permute(4, 0, 2, 1, 3)
        whole = whole.reshape(-1, rows * side, columns * side)
        whole = unpadded(whole, *picture_size)
        newline = self.image_newline[:, None, None].expand(-1, whole.shape[1], 1)
        whole = torch.cat([whole, newline], dim=2).flatten(1).T
        return torch.cat([features[0], whole])

    def embed(self, tokens, image_features):
        """Rows [n, hidden] of token ids with IMAGE_TOKEN where an image stands, and the image of every row."""
        rows, image_of_row = [], []
        n_images = 0
        for token in tokens:
            if token == IMAGE_TOKEN:
                rows.append(image_features[n_images])
                image_of_row += [n_images] * len(image_features[n_images])
                n_images += 1
            else:
                rows.append(self.language_model.model.embed_tokens(torch.tensor([token])))
                image_of_row.append(TEXT)
        assert n_images == len(image_features)
        return torch.cat(rows), image_of_row
