#!/usr/bin/env python3
"""Makes tests/golden/image: small pictures, and what Pillow, transformers' CLIPImageProcessor and LLaVA make of them.

Needs numpy, pillow before 12.2 (see src/image/resize.h), torch and transformers 5. Large pictures are not stored:
pattern() below and the C test draw the same one. What is stored of a result is its CRC-32 (the hash columns).

    python tests/golden/make_image.py
"""

import math
import pathlib
import struct
import zlib

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from transformers.image_processing_utils import select_best_resolution as hf_select_best_resolution
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import unpad_image as hf_unpad_image

OUT = pathlib.Path(__file__).resolve().parent / "image"
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
HALVES = [0.5, 0.5, 0.5]
Image.MAX_IMAGE_PIXELS = None


def pattern(seed, width, height):
    """Blocks of white, black, a soft slope and noise: [height, width, 3], 8 bits."""
    y, x, c = np.meshgrid(np.arange(height, dtype=np.uint32), np.arange(width, dtype=np.uint32),
                          np.arange(3, dtype=np.uint32), indexing="ij")
    noise = x * np.uint32(374761393) + y * np.uint32(668265263) + c * np.uint32(2246822519) + np.uint32(
        seed * 3266489917 & 0xFFFFFFFF)
    noise ^= noise >> np.uint32(13)
    noise *= np.uint32(1274126177)
    noise ^= noise >> np.uint32(16)
    slope = (x * (3 + c) + y * (5 - c)) >> np.uint32(2)
    block = ((x >> np.uint32(4)) ^ (y >> np.uint32(4))) & np.uint32(3)
    value = np.select([block == 0, block == 1, block == 2], [np.uint32(255), np.uint32(0), (slope & 127) + (noise & 63)],
                      noise)
    return (value & 255).astype(np.uint8)


def picture(seed, width, height):
    return Image.fromarray(pattern(seed, width, height))


def corner(seed, width, height):
    """A small picture where blocks of the pattern meet."""
    return Image.fromarray(pattern(seed, 64, 64)[27:27 + height, 26:26 + width])


# ---- resampling ---------------------------------------------------------------------------------------------------

RESIZE = [
    (1, 1, 336, 336), (1, 1, 1, 1), (2, 3, 5, 7), (7, 5, 336, 336), (336, 336, 336, 336), (336, 200, 336, 336),
    (200, 336, 336, 336), (335, 337, 336, 336), (640, 480, 448, 336), (480, 640, 336, 448), (1920, 1080, 672, 378),
    (3000, 20, 336, 336), (20, 3000, 336, 336), (20, 3000, 7, 672), (3000, 20, 1008, 7), (4000, 3000, 336, 252),
    (511, 767, 100, 901), (97, 89, 13, 1), (1, 500, 3, 2), (1000, 1, 1, 1000), (800, 600, 672, 504), (37, 41, 74, 82),
]


def make_resize():
    with open(OUT / "resize.txt", "w") as f:
        f.write("# seed width height new_width new_height hash, of Image.resize(size, BICUBIC)\n")
        for seed, (w, h, nw, nh) in enumerate(RESIZE, 1):
            resized = picture(seed, w, h).resize((nw, nh), Image.Resampling.BICUBIC)
            f.write(f"{seed} {w} {h} {nw} {nh} {zlib.crc32(resized.tobytes()):08x}\n")


# ---- LLaVA's functions, in our words ------------------------------------------------------------------------------

NEXT_PINPOINTS = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
SMALL_PINPOINTS = [(112, 112), (112, 224), (224, 112), (224, 224), (448, 112), (112, 448), (336, 224)]


def select_best_resolution(size, pinpoints):
    best, most_effective, least_wasted = None, 0, math.inf
    for pinpoint in pinpoints:
        scale = min(pinpoint[0] / size[0], pinpoint[1] / size[1])
        scaled = int(size[0] * scale) * int(size[1] * scale)
        effective = min(scaled, size[0] * size[1])
        wasted = pinpoint[0] * pinpoint[1] - effective
        if effective > most_effective or (effective == most_effective and wasted < least_wasted):
            best, most_effective, least_wasted = pinpoint, effective, wasted
    return best


def resize_and_pad(image, resolution):
    scale_w, scale_h = resolution[0] / image.width, resolution[1] / image.height
    if scale_w < scale_h:
        size = resolution[0], min(math.ceil(image.height * scale_w), resolution[1])
    else:
        size = min(math.ceil(image.width * scale_h), resolution[0]), resolution[1]
    padded = Image.new("RGB", resolution, (0, 0, 0))
    padded.paste(image.resize(size), ((resolution[0] - size[0]) // 2, (resolution[1] - size[1]) // 2))
    return padded


def expand2square(image, colour):
    side = max(image.size)
    if image.width == image.height:
        return image
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def unpad(rows, cols, size):
    """top, left, rows and cols of what LLaVA's unpad_image keeps of a rows x cols map."""
    if size[0] / size[1] > cols / rows:
        padding = (rows - int(size[1] * (cols / size[0]))) // 2
        return padding, 0, rows - 2 * padding, cols
    padding = (cols - int(size[0] * (rows / size[1]))) // 2
    return 0, padding, rows, cols - 2 * padding


def hf_unpad(rows, cols, size):
    grid = torch.arange(rows * cols).reshape(1, rows, cols)
    kept = hf_unpad_image(grid, (size[1], size[0]))[0]
    if kept.numel() == 0:
        return kept.shape
    top, left = divmod(int(kept[0, 0]), cols)
    return top, left, *kept.shape


def process(image, mode, side, mean, std, pinpoints):
    """[n_tiles, 3, side, side], float32"""
    clip = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side},
                                 image_mean=mean, image_std=std)
    if mode == "pad":
        images = [expand2square(image, tuple(int(x * 255) for x in mean))]
    elif mode == "square":
        images = [image]
    else:
        resolution = select_best_resolution(image.size, pinpoints)
        assert tuple(hf_select_best_resolution(image.size[::-1], [p[::-1] for p in pinpoints])[::-1]) == resolution
        padded = resize_and_pad(image, resolution)
        images = [image.resize((side, side))]
        for y in range(0, resolution[1], side):
            for x in range(0, resolution[0], side):
                images.append(padded.crop((x, y, x + side, y + side)))
    tiles = np.stack([clip.preprocess(i, return_tensors="np")["pixel_values"][0] for i in images])
    assert tiles.dtype == np.float32
    return tiles


def preprocess_cases():
    sizes = [(1, 1), (2, 1), (7, 5), (336, 336), (335, 337), (640, 480), (480, 640), (333, 1000), (1000, 333),
             (3000, 20), (20, 3000), (672, 672), (1280, 720), (511, 767)]
    for size in sizes:
        for mode in ("pad", "square", "anyres"):
            yield mode, size, 336, 14, "clip", "next"
    yield "pad", (4000, 3000), 336, 14, "clip", "next"
    yield "anyres", (4000, 3000), 336, 14, "clip", "next"
    yield "anyres", (672, 336), 336, 14, "clip", "next"
    yield "anyres", (300, 1200), 336, 14, "clip", "next"
    yield "pad", (9000, 2), 336, 14, "clip", "next"
    yield "pad", (640, 427), 384, 14, "halves", "next"
    yield "square", (427, 640), 224, 16, "halves", "next"
    for size in [(100, 100), (400, 100), (90, 401), (250, 230), (333, 222), (13, 17)]:
        yield "anyres", size, 112, 14, "halves", "small"


def make_preprocess():
    with open(OUT / "preprocess.txt", "w") as f:
        f.write("# mode width height image_size patch_size statistics pinpoints seed n_tiles hash, of the tiles as\n"
                "# little-endian float32; then the index and bits of three of its values\n")
        for seed, (mode, size, side, patch, statistics, pinpoints) in enumerate(preprocess_cases(), 100):
            mean, std = (CLIP_MEAN, CLIP_STD) if statistics == "clip" else (HALVES, HALVES)
            tiles = process(picture(seed, *size), mode, side, mean, std,
                            NEXT_PINPOINTS if pinpoints == "next" else SMALL_PINPOINTS)
            flat = tiles.reshape(-1)
            samples = " ".join(f"{i} {flat.view(np.uint32)[i]:08x}"
                               for i in (flat.size // 7, flat.size // 2 + 11, flat.size * 6 // 7))
            f.write(f"{mode} {size[0]} {size[1]} {side} {patch} {statistics} {pinpoints} {seed} {len(tiles)} "
                    f"{zlib.crc32(tiles.astype('<f4').tobytes()):08x} {samples}\n")


def make_layout():
    random = np.random.default_rng(20241022)
    sizes = [(1, 1), (3000, 20), (20, 3000), (65500, 1), (1, 65500), (336, 672), (672, 336), (640, 480), (480, 640),
             (1024, 768), (500, 375), (640, 427), (1920, 1080), (1080, 1920), (800, 600), (100, 100), (1000, 500),
             (836, 352), (799, 376), (846, 1504), (5000, 5000), (1, 2), (2, 1)]
    sizes += [tuple(int(v) for v in random.integers(1, limit, 2)) for limit in (50, 400, 2000, 8000) for _ in range(60)]
    with open(OUT / "layout.txt", "w") as f:
        f.write("# pinpoints width height grid_width grid_height top left rows cols n_tokens, as LLaVA has them\n")
        differ = []
        for name, pinpoints, side in (("next", NEXT_PINPOINTS, 336), ("small", SMALL_PINPOINTS, 112)):
            for size in sizes:
                best = select_best_resolution(size, pinpoints)
                assert tuple(hf_select_best_resolution(size[::-1], [p[::-1] for p in pinpoints])[::-1]) == best
                rows, cols = best[1] // 14, best[0] // 14
                crop = unpad(rows, cols, size)
                theirs = hf_unpad(rows, cols, size)
                if tuple(theirs) != (crop if crop[2] * crop[3] else crop[2:]):
                    differ.append((name, size, crop, tuple(theirs)))
                tokens = (side // 14)**2 + crop[2] * (crop[3] + 1)
                f.write(f"{name} {size[0]} {size[1]} {best[0] // side} {best[1] // side} "
                        f"{' '.join(map(str, crop))} {tokens}\n")
        # The known sizes where transformers rounds to 7 decimals and LLaVA does not.
        assert [d[:2] for d in differ] == [("next", s) for s in ((836, 352), (799, 376), (846, 1504))], differ


# ---- files --------------------------------------------------------------------------------------------------------


def exif_block(orientation, order):
    """A TIFF block with another tag before the orientation."""
    short = order + "HHI"
    entries = struct.pack(short, 0x0100, 3, 1) + struct.pack(order + "HH", 640, 0)
    entries += struct.pack(short, 0x0112, 3, 1) + struct.pack(order + "HH", orientation, 0)
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", 2) + entries + struct.pack(order + "I", 0)


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_rows(samples, depth):
    """Filtered rows of [height, width, channels] samples; the filters go round."""
    height, width, channels = samples.shape
    if depth == 16:
        rows = samples.astype(">u2").tobytes()
    elif depth == 8:
        rows = samples.astype(np.uint8).tobytes()
    else:
        bits = (samples.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    stride = len(rows) // height if height else 0
    step = max(1, channels * depth // 8)
    out, above = b"", bytes(stride)
    for y in range(height):
        row, method = rows[y * stride:(y + 1) * stride], y % 5
        filtered = bytearray()
        for i in range(stride):
            a, b, c = (row[i - step] if i >= step else 0), above[i], (above[i - step] if i >= step else 0)
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            filtered.append((row[i] - (0, a, b, (a + b) // 2, paeth)[method]) & 255)
        out, above = out + bytes([method]) + bytes(filtered), row
    return out


def png_file(samples, depth, colour, interlaced=False, palette=None, trns=None, before=b"", after=b""):
    height, width, _ = samples.shape
    if interlaced:
        data = b""
        for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
                             (0, 1, 1, 2)):
            part = samples[y::dy, x::dx]
            if part.size:
                data += png_rows(part, depth)
    else:
        data = png_rows(samples, depth)
    data = zlib.compress(data, 9)
    out = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0,
                                                               interlaced))
    out += png_chunk(b"PLTE", palette) if palette else b""
    out += png_chunk(b"tRNS", trns) if trns else b""
    half = len(data) // 2
    return out + before + png_chunk(b"IDAT", data[:half]) + png_chunk(b"IDAT", data[half:]) + after + png_chunk(
        b"IEND", b"")


def over_white(rgba):
    """Round to nearest of value * alpha + 255 * (1 - alpha), in integers."""
    rgb, alpha = rgba[..., :3].astype(np.int64), rgba[..., 3:].astype(np.int64)
    return ((2 * (rgb * alpha + 255 * (255 - alpha)) + 255) // 510).astype(np.uint8)


def pillow(path):
    image = ImageOps.exif_transpose(Image.open(path))
    rgba = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(rgba, mask=rgba.getchannel("A"))
    assert np.array_equal(np.asarray(white), over_white(np.asarray(rgba)))
    return white


def make_png(write):
    random = np.random.default_rng(7)
    width, height = 13, 11
    for colour, channels, depths in ((0, 1, (1, 2, 4, 8, 16)), (2, 3, (8, 16)), (3, 1, (1, 2, 4, 8)), (4, 2, (8, 16)),
                                     (6, 4, (8, 16))):
        for depth in depths:
            for variant in ("", "_interlaced", "_transparent"):
                if variant == "_transparent" and colour in (4, 6):
                    continue
                samples = random.integers(0, 1 << depth, (height, width, channels))
                samples[2:6, 3:9] = samples[0, 0]  # an area of one colour, which the transparent variants drop
                palette = trns = None
                top = (1 << depth) - 1
                rgba = np.full((height, width, 4), 255, np.int64)
                scaled = samples >> 8 if depth == 16 else samples * 255 // top
                if colour == 3:
                    n_entries = min(1 << depth, 200)
                    samples %= n_entries
                    table = random.integers(0, 256, (n_entries, 4))
                    if variant != "_transparent":
                        table[:, 3] = 255
                    else:
                        trns = bytes(table[:-1, 3].tolist())
                        table[-1, 3] = 255
                    palette = table[:, :3].astype(np.uint8).tobytes()
                    rgba = table[samples[..., 0]]
                else:
                    rgba[..., :3] = scaled[..., :3] if channels >= 3 else scaled[..., :1]
                    if channels in (2, 4):
                        rgba[..., 3] = scaled[..., -1]
                    if variant == "_transparent":
                        trns = struct.pack(f">{channels}H", *samples[0, 0].tolist())
                        rgba[(samples == samples[0, 0]).all(-1), 3] = 0
                data = png_file(samples, depth, colour, variant == "_interlaced", palette, trns)
                # Pillow clips 16-bit grey at 255 instead of scaling it, and looks for the transparent colour of files
                # of 2, 4 and 16 bits among samples that it has already turned into 8 bits.
                by_pillow = colour == 3 or depth in (1, 8) or not (trns or (colour == 0 and depth == 16))
                write(f"png_{('grey', '', 'rgb', 'palette', 'grey_alpha', '', 'rgb_alpha')[colour]}_{depth}{variant}.png",
                      data, over_white(rgba), by_pillow)
    pixels = np.asarray(corner(3, 9, 6))
    for name, order, orientation, where in (("before", "<", 6, "before"), ("after", ">", 3, "after")):
        write(f"png_exif_{name}.png",
              png_file(pixels, 8, 2, **{where: png_chunk(b"eXIf", exif_block(orientation, order))}))
    write("png_1x1.png", png_file(pixels[:1, :1], 8, 2, True))


def make_jpeg(write):
    scratch = OUT / "scratch.jpg"

    def encoded(image, **options):
        image.save(scratch, "JPEG", **options)
        data = scratch.read_bytes()
        scratch.unlink()
        return data

    image = picture(11, 43, 29)
    for name, sampling in (("444", 0), ("422", 1), ("420", 2)):
        write(f"jpeg_{name}.jpg", encoded(image, quality=85, subsampling=sampling))
    write("jpeg_progressive.jpg", encoded(image, quality=80, progressive=True))
    write("jpeg_restart.jpg", encoded(image, quality=80, restart_marker_blocks=2))
    write("jpeg_rgb.jpg", encoded(image, quality=90, keep_rgb=True))
    write("jpeg_grey.jpg", encoded(image.convert("L"), quality=80))
    write("jpeg_1x1.jpg", encoded(image.crop((0, 0, 1, 1))))
    # The pixels of a 4:2:2 file in blocks of another shape: nonsense to look at, but a valid 4:4:0 file.
    data = bytearray(encoded(picture(12, 32, 32), quality=85, subsampling=1))
    at = data.index(b"\xff\xc0") + 11
    assert data[at] == 0x21
    data[at] = 0x12
    write("jpeg_440.jpg", bytes(data))

    ramp = np.stack([pattern(14, 21, 17)[..., 0], pattern(15, 21, 17)[..., 1], pattern(16, 21, 17)[..., 2],
                     pattern(17, 21, 17)[..., 0] // 2], -1)
    data = encoded(Image.fromarray(ramp, "CMYK"), quality=85)
    write("jpeg_cmyk.jpg", data)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    write("jpeg_ycck.jpg", data[:at] + b"\x02" + data[at + 1:])

    small = corner(18, 17, 9)
    for orientation in range(1, 9):
        block = b"Exif\0\0" + exif_block(orientation, "<>"[orientation % 2])
        write(f"jpeg_exif_{orientation}.jpg", encoded(small, quality=90, exif=block))


def make_webp(write):
    scratch = OUT / "scratch.webp"

    def encoded(image, **options):
        image.save(scratch, "WEBP", **options)
        data = scratch.read_bytes()
        scratch.unlink()
        return data

    image = picture(21, 37, 23)
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(pattern(22, 37, 23)[..., 1]))
    write("webp_lossless.webp", encoded(image, lossless=True))
    write("webp_lossless_alpha.webp", encoded(alpha, lossless=True, exact=True))
    write("webp_lossy.webp", encoded(image, quality=70))
    write("webp_lossy_alpha.webp", encoded(alpha, quality=70))
    write("webp_exif.webp", encoded(image, lossless=True, exif=exif_block(6, ">")))
    write("webp_exif_prefix.webp", encoded(image, quality=60, exif=b"Exif\0\0" + exif_block(7, "<")))
    # A chunk of odd size, and so a byte of padding, before the one that is looked for.
    write("webp_exif_odd.webp", encoded(image, lossless=True, exif=exif_block(8, "<"), icc_profile=b"no real profile"))
    frames = [corner(s, 8, 8) for s in (23, 24)]
    (OUT / "bad_animated.webp").write_bytes(encoded(frames[0], save_all=True, append_images=frames[1:]))


def make_files():
    with open(OUT / "decode.txt", "w") as f:
        f.write("# file width height hash, of the upright RGB pixels, alpha over white\n")

        def write(name, data, expected=None, by_pillow=True):
            (OUT / name).write_bytes(data)
            if by_pillow:
                theirs = np.asarray(pillow(OUT / name))
                assert expected is None or np.array_equal(theirs, expected), name
                expected = theirs
            f.write(f"{name} {expected.shape[1]} {expected.shape[0]} {zlib.crc32(expected.tobytes()):08x}\n")

        make_jpeg(write)
        make_png(write)
        make_webp(write)
    (OUT / "bad_empty.jpg").write_bytes(b"")
    (OUT / "bad_text.png").write_bytes(b"This is not a picture, whatever its name says.\n")
    picture(31, 5, 5).save(OUT / "bad_gif.jpg", "GIF")


if __name__ == "__main__":
    assert tuple(map(int, PIL.__version__.split(".")[:2])) < (12, 2)
    OUT.mkdir(exist_ok=True)
    make_files()
    make_resize()
    make_layout()
    make_preprocess()
