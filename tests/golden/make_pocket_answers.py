#!/usr/bin/env python3
"""Makes tests/golden/pocket/questions.json and pictures/: what llama.cpp answers with the pocket model.

    llama-server -m models/pocket/dense.gguf --mmproj models/pocket/dense-mmproj.gguf -c 1024 -fa off -ctk f32 -ctv f32
    python make_pocket_answers.py http://127.0.0.1:8080 SCENES

SCENES is the project's build/scenes. Four questions of each task, of the test split, on pictures as large as the tower
sees them, so that nobody's resampling is in the comparison. Greedy; the prompt is LLaVA's v1, as text. llama.cpp's
answer takes the expected one's place, which is kept as "truth".

llama.cpp (b11669 at least) puts the tower's class token last and takes the rows 1 to n of what comes out, so that its first
image token is the second patch's, its last the class token's, and positions are those of the patch before. transformers
does not, nor do we. DIFFERENT is what it answers otherwise for that reason: with `ggml_concat(ctx, patches, class_rows, 1)`
in src/model/vision.c, which is llama.cpp's order, all 48 answers are the same.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "pocket")
SEED, SIDE, EACH = 2026, 216, 4
DIFFERENT = ("test-words-000001", "test-words-000002", "test-numbers-000001", "test-numbers-000002",
             "test-numbers-000003", "test-documents-000003", "test-charts-000002", "test-emoji-000003")
SYSTEM = ("A chat between a curious user and an artificial intelligence assistant. "
          "The assistant gives helpful, detailed, and polite answers to the user's questions.")


def get(url, body=None):
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def ask(server, marker, picture, question):
    with open(picture, "rb") as file:
        data = base64.b64encode(file.read()).decode()
    prompt = f"{SYSTEM} USER: {marker}\n{question} ASSISTANT:"
    answer = get(f"{server}/completion", {"prompt": {"prompt_string": prompt, "multimodal_data": [data]}, "n_predict": 16,
                                          "temperature": 0, "cache_prompt": False})
    return answer["content"].strip()


def main():
    server, scenes = sys.argv[1:]
    marker = get(f"{server}/props").get("media_marker", "<__media__>")
    version = get(f"{server}/props").get("build_info")
    pictures = os.path.join(OUT, "pictures")
    shutil.rmtree(pictures, ignore_errors=True)
    os.makedirs(pictures)
    with tempfile.TemporaryDirectory() as data:
        subprocess.run([scenes, "--kind", "eval", "--seed", str(SEED), "--size", str(SIDE), "-n", str(EACH), "--held-out", "0",
                        "--out", data], check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(data, "test-eval.json"), encoding="utf-8") as file:
            records = json.load(file)
        for record in (record for record in records if record["id"] not in DIFFERENT):
            name = record["id"] + ".png"
            shutil.copy(os.path.join(data, record["image"]), os.path.join(pictures, name))
            record["image"] = name
            record["truth"] = record["answer"]
            record["answer"] = ask(server, marker, os.path.join(pictures, name), record["question"])
            print(f"{record['question']} {record['answer']} ({record['truth']})")
    with open(os.path.join(OUT, "questions.json"), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(record) for record in records if "truth" in record) + "\n]\n")
    print(f"{len(records) - len(DIFFERENT)} of {len(records)} questions, llama.cpp {version}")


if __name__ == "__main__":
    main()
