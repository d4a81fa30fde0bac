#!/usr/bin/env python3
"""Draws house.png, the demo's picture: a red house on a green hill, a yellow sun, a sailing boat on blue water.

Only Python's standard library; the same bytes on every run with the same zlib.
"""
import os
import struct
import zlib

WIDTH, HEIGHT, SAMPLES = 480, 360, 3  # SAMPLES x SAMPLES points a pixel, averaged


def polygon(x, y, *corners):
    """Whether (x, y) lies in the convex polygon whose corners run clockwise on the screen."""
    return all((bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0
               for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]))


def colour(x, y):
    """The picture at a point, from front to back."""
    if polygon(x, y, (62, 262), (158, 262), (142, 286), (80, 286)):
        return (120, 72, 40)  # hull
    if 108 <= x <= 111 and 168 <= y <= 262:
        return (90, 60, 40)  # mast
    if polygon(x, y, (114, 172), (156, 254), (114, 254)):
        return (250, 250, 245)  # sail
    if polygon(x, y, (105, 184), (105, 254), (70, 254)):
        return (240, 150, 60)  # jib
    if 352 <= x <= 376 and 226 <= y <= 268:
        return (70, 44, 30)  # door
    for left in (312, 392):
        if left <= x <= left + 26 and 212 <= y <= 238:
            on_bar = abs(x - left - 13) < 1.5 or abs(y - 225) < 1.5
            return (245, 245, 240) if on_bar else (150, 205, 240)  # window
    if 300 <= x <= 430 and 192 <= y <= 268:
        return (200, 44, 40)  # house
    if polygon(x, y, (284, 192), (365, 138), (446, 192)):
        return (82, 60, 66)  # roof
    if 398 <= x <= 412 and 138 <= y <= 180:
        return (150, 90, 80)  # chimney
    if ((x - 365) / 210) ** 2 + ((y - 352) / 112) ** 2 <= 1:
        return (76, 154, 62)  # hill
    if (x - 96) ** 2 + (y - 76) ** 2 <= 38 ** 2:
        return (252, 214, 56)  # sun
    if y >= 232:
        band = int((y - 232) // 16) % 2
        return (36 + 8 * band, 100 + 10 * band, 176 + 8 * band)  # water
    step = int(y // 29)
    return (118 + 10 * step, 180 + 7 * step, 240 + step)  # sky


def rows():
    offsets = [(i + 0.5) / SAMPLES for i in range(SAMPLES)]
    for y in range(HEIGHT):
        row = bytearray([0])  # PNG filter "none"
        for x in range(WIDTH):
            points = [colour(x + dx, y + dy) for dy in offsets for dx in offsets]
            row += bytes(sum(channel) // len(points) for channel in zip(*points))
        yield bytes(row)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "house.png")
with open(path, "wb") as file:
    file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0))
               + chunk(b"IDAT", zlib.compress(b"".join(rows()), 9)) + chunk(b"IEND", b""))
