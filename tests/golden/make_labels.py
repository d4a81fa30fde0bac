#!/usr/bin/env python3
"""Makes tests/golden/train: what LLaVA's own code makes of conversations (tokens, labels), and of lengths (the order
of samples); and the small vocabularies that it is done with.

    python make_labels.py LLAVA

LLAVA is a checkout of https://github.com/haotian-liu/LLaVA. Of llava/train/train.py and llava/train/llava_trainer.py
the functions named below are run as they stand there, with transformers' own LlamaTokenizer, "legacy" and not. Made at
c121f0432da27facab705978f83c4ada465e46fd with transformers 4.57.6 (5 has no such tokenizer any more), tokenizers 0.22.2,
sentencepiece 0.2.3, protobuf, torch, gguf and Pillow.

Three things are ours. LLaVA knows one picture a conversation; with several, turns that hold one placeholder are treated
as LLaVA does, and placeholders of other turns stay where they stand, as in LLaVA-NeXT. LLaVA has no code for chat
templates with special tokens around every message: there a token carries a label when its last character belongs to an
answer or to the token that ends it. And the labels of "chatml_direct", whose tokens are preprocess_mpt's, are found so
too (mpt_labels says why).
"""

import argparse
import ast
import copy
import importlib
import io
import json
import os
import random
import sys
import tempfile
import typing

import gguf
import sentencepiece
import tokenizers
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, models

import make_text

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "train")
IGNORE_INDEX = -100
SPECIALS = ["<|im_start|>", "<|im_end|>"]

# ---- conversations -------------------------------------------------------------------------------------------------


def talk(*texts, image=None, first="human"):
    speakers = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    record = {"conversations": [{"from": speakers[i % 2], "value": t} for i, t in enumerate(texts)]}
    if image is not None:
        record["image"] = image
    return record


RECORDS = [
    talk("<image>\nWhat is in the picture?", "There is a cat on a chair.", image="a.png"),
    talk("What is in the picture?\n<image>", "A red bus.", image="a.png"),
    talk("Look at <image> and tell me what you see.", "A street with two bicycles.", image="a.png"),
    talk("  <image>  ", "Nothing but blanks around it.", image="a.png"),
    talk("<image>", "A caption.", image="a.png"),
    talk("<image>\nWhat colour is the car?", "Red.", "And the bus?", "Blue, I think.", "Why?", "I see it.", image="a.png"),
    talk("What is a cat?", "An animal.", "And then?\n<image>", "Here is one.", image="a.png"),
    talk("<image><image>\nTwice the same.", "One picture is left of it.", image="a.png"),
    talk("<image>\u00a0\u3000\nBlanks of other scripts.\u2003", "Taken away as well.", image="a.png"),
    talk("Hello!", "Hello."),
    talk("What is 1 + 1?", "2", "And 2 + 2?", "4", "And 4 + 4?", "8", "Thank you.", "You are welcome."),
    talk("Was ist das?", "Eine Straße in der Größe einer Übung."),
    talk("图片里有什么？", "这是一只猫。", "还有呢？", "没有。"),
    talk("<image>\nいろは 😀", "写真には猫が写っています 👨‍👩‍👧‍👦.", image="a.png"),
    talk("что это?", "Съешь же ещё этих мягких французских булок."),
    talk("a\u2581b", "\u2581\u2581c"),
    talk("One question.", ""),
    talk("<image>\nOne.", "", "Two.", "An answer.", image="a.png"),
    talk("<image>\nOne.", "An answer.", "Two.", "", image="a.png"),
    talk("", "An answer without a question."),
    talk("<image>\n", " An answer with a blank before it.", image="a.png"),
    talk("Q", " ", "Q", "  two blanks", "Q", "trailing  "),
    talk("Lines\n\nof\ttext\n", "More\nlines\n\n", "   ", "\nA line before."),
    talk("I start.", "You do?", "Yes.", "No.", first="gpt"),
    talk("I start.", "<image>\nYou do?", "Yes.", image="a.png", first="gpt"),
    talk("A question that is not answered."),
    talk("<image>\nA question", "an answer", "and a question that is not answered.", image="a.png"),
    talk("Say </s> or <s>.", "I say </s> now."),
    talk("What does ASSISTANT: mean?", "USER: and ASSISTANT: are roles."),
    talk("What does [/INST] mean?", "It ends [INST] and [/INST] an instruction."),
    talk("Write <|im_start|>user\n", "It is <|im_end|> over."),
    talk("An <unk> token.", "Is <unk> here."),
    talk("<image>\nIs there a dog?", "No", image="a.png"),
    talk("<image>\nCount.", "1 2 3 4 5 6 7 8 9 10", image=["a.png"]),
    talk("<image>\n<image>\nWhat is different?", "The second has a dog.", image=["a.png", "b.png"]),
    talk("First <image> then", "Seen.", "this: <image>", "Seen too.", "Compare.", "The same.", image=["a.png", "b.png"]),
    talk("a<image>b<image>c <image>", "Three in the middle.", image=["a.png", "b.png", "c.png"]),
    talk("Draw a cat.", "<image>\nHere it is.", image="a.png"),
    talk("x" * 60, "y" * 60),
    talk("<image>\n" + "What is it? " * 12, "It is a pyramid. " * 12, image="a.png"),
    talk("<image>\n" + "What is it? " * 3, "It is a pyramid. " * 3, "More. " * 20, "That's a pyramid. " * 20, image="a.png"),
    talk("(USER", "ASSISTANT)"),
    talk("12345", "3.14159, 1e-5, 0x1F600"),
]


def images_of(record):
    image = record.get("image", [])
    return [image] if isinstance(image, str) else image


# ---- LLaVA's code --------------------------------------------------------------------------------------------------


def functions_of(path, names, namespace):
    """The functions `names` of a file, run in `namespace`: its other imports need a GPU's world."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    assert {node.name for node in found} == set(names)
    exec(compile(ast.Module(found, []), path, "exec"), namespace)
    return namespace


def load_train(checkout):
    constants = make_text.llava_module(checkout, "constants")
    namespace = {name: getattr(constants, name) for name in dir(constants) if name.isupper()}
    namespace |= {
        "copy": copy, "torch": torch, "transformers": transformers, "Dict": typing.Dict, "Sequence": typing.Sequence,
        "DataArguments": object, "IS_TOKENIZER_GREATER_THAN_0_14": True,
        "conversation_lib": make_text.llava_module(checkout, "conversation"),
        "tokenizer_image_token": make_text.llava_module(checkout, "mm_utils").tokenizer_image_token,
    }
    return functions_of(os.path.join(checkout, "llava", "train", "train.py"),
                        ["preprocess_multimodal", "preprocess_llama_2", "preprocess_v1", "preprocess_mpt",
                         "preprocess_plain", "preprocess"], namespace)


class Arguments:
    is_multimodal = True
    mm_use_im_start_end = False


def run_llava(train, template, tokenizer, record):
    """(tokens, spans of labels, whether it warned) or None where LLaVA ends with an exception."""
    warnings = []
    train["print"] = lambda *args: warnings.append(" ".join(map(str, args)))
    train["conversation_lib"].default_conversation = train["conversation_lib"].conv_templates[template]
    turns = copy.deepcopy(record["conversations"])
    images = images_of(record)
    try:
        if images:
            for turn in turns:
                if len(images) == 1 or turn["value"].count("<image>") == 1:
                    train["preprocess_multimodal"]([[turn]], Arguments)
            # LLaVA finds out when it lays the features in.
            used = turns if turns[0]["from"] == "human" else turns[1:]
            if sum(turn["value"].count("<image>") for turn in used) != len(images):
                return None
        result = train["preprocess"]([turns], tokenizer, has_image=bool(images))
    except (AssertionError, KeyError, IndexError):
        return None
    tokens = result["input_ids"][0].tolist()
    labels = result["labels"][0].tolist()
    if template == "chatml_direct":
        labels = mpt_labels(train, tokenizer, turns, bool(images), tokens)
        warnings = []
    if tokens.count(-200) != len(images):  # "plain" keeps one
        return None
    assert all("tokenization mismatch" in w for w in warnings)
    return tokens, spans_of(tokens, labels), bool(warnings)


def mpt_labels(train, tokenizer, turns, has_image, tokens):
    """What preprocess_mpt is after. As published it forgets the last end token when it adds up the rounds, and so masks
    all of most conversations as a "tokenization mismatch"."""
    conversation = train["conversation_lib"].default_conversation
    text, answers = conversation.system + conversation.sep, []
    for i, turn in enumerate(turns if turns[0]["from"] == "human" else turns[1:]):
        text += conversation.roles[i % 2]
        start = len(text)
        if turn["value"]:
            text += turn["value"] + conversation.sep
            if i % 2:
                answers.append((len(text[:start].encode()), len(text.encode())))
    text = text.encode()
    labels, at = [], 0
    for i, token in enumerate(tokens):
        piece = tokenizer.sp_model.id_to_piece(token) if token >= 0 else "<image>"
        if token == tokenizer.bos_token_id and i == 0:
            labels.append(IGNORE_INDEX)
            continue
        shown = bytes([int(piece[3:5], 16)]) if piece.startswith("<0x") else piece.encode()
        blank = "\u2581".encode()
        if not text.startswith(shown, at):
            shown = shown.replace(blank, b" ")
        if not text.startswith(shown, at) and shown.startswith(b" "):  # the space before a text
            shown = shown[1:]
        assert text.startswith(shown, at)
        at += len(shown)
        last = at if shown else at + 1  # a space that stands before a text is of what follows
        labels.append(token if any(a < last <= b for a, b in answers) else IGNORE_INDEX)
    assert at == len(text) and has_image == (-200 in tokens)
    return labels


def spans_of(tokens, labels):
    """Runs [start, end) of labels; a label is the token itself."""
    spans = []
    for i, (token, label) in enumerate(zip(tokens, labels, strict=True)):
        if label == IGNORE_INDEX or token == -200:  # which become IGNORE_INDEX when the features are laid in
            continue
        assert label == token
        if spans and spans[-1][1] == i:
            spans[-1][1] = i + 1
        else:
            spans.append([i, i + 1])
    return spans


# ---- vocabularies --------------------------------------------------------------------------------------------------

SYSTEMS_TEXT = [
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the user's questions.",
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.",
    "Answer the questions.",
]


def corpus():
    """As in LLaMA's vocabulary, "USER" is one token and " USER" is two."""
    rng = random.Random(2410)
    sentences = make_text.SENTENCES + SYSTEMS_TEXT
    sentences = [s.replace("USER: ", "").replace(" ASSISTANT: ", " ") for s in sentences]
    for _ in range(1500):
        yield rng.choice(sentences)
        yield f"(USER: {rng.choice(sentences)} ASSISTANT: {rng.choice(sentences)}"
        yield f"[INST] {rng.choice(sentences)} [/INST] {rng.choice(sentences)}"


def train_vocabulary():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(), model_writer=model, model_type="bpe", vocab_size=900,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        split_digits=True, byte_fallback=True, character_coverage=0.99, control_symbols=SPECIALS, num_threads=1,
        minloglevel=2, max_sentence_length=100000)
    return model.getvalue()


def llama_tokenizer(path, legacy, add_bos, max_length):
    tokenizer = transformers.LlamaTokenizer(path, legacy=legacy, add_bos_token=add_bos, model_max_length=max_length)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIALS})
    tokenizer.pad_token = tokenizer.unk_token  # as LLaVA's train()
    return tokenizer


def write_vocabulary(name, sp, add_bos):
    make_text.OUT, former = OUT, make_text.OUT
    pieces = [sp.id_to_piece(i) for i in range(sp.get_piece_size())]
    make_text.write_gguf(name, "llama", pieces, make_text.spm_types(sp),
                         scores=[sp.get_score(i) for i in range(len(pieces))], bos=sp.bos_id(), eos=sp.eos_id(),
                         unk=sp.unk_id(), add_bos=add_bos)
    make_text.OUT = former


# ---- chat templates with special tokens ----------------------------------------------------------------------------

# (template, vocabulary of golden/text, system prompt, before and behind a speaker's name, behind a message, strip)
CHATS = [
    ("qwen", "qwen2", "You are a helpful assistant.", "<|im_start|>", "\n", "<|im_end|>", "\n", False),
    ("chatml", "gpt2", None, "<|im_start|>", "\n", "<|im_end|>", "\n", False),
]


def tokenizer_of_gguf(name):
    reader = gguf.GGUFReader(os.path.join(HERE, "text", name + ".gguf"))
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    types = reader.get_field("tokenizer.ggml.token_type").contents()
    merges = [tuple(m.split(" ")) for m in reader.get_field("tokenizer.ggml.merges").contents()]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = make_text.PRE_TOKENIZERS[reader.get_field("tokenizer.ggml.pre").contents()]()
    for token, kind in zip(tokens, types):
        if kind == gguf.TokenType.CONTROL:
            tokenizer.add_special_tokens([token])
        elif kind == gguf.TokenType.USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=False)])
    return tokenizer


def run_chat(train, chat, tokenizer, record):
    _, _, system, before, behind, end, gap, _ = chat
    turns = copy.deepcopy(record["conversations"])
    if turns[0]["from"] == "gpt":
        turns = turns[1:]
    images = images_of(record)
    train["conversation_lib"].default_conversation = train["conversation_lib"].conv_templates["vicuna_v1"]
    if images:
        for turn in turns:
            if len(images) == 1 or turn["value"].count("<image>") == 1:
                train["preprocess_multimodal"]([[turn]], Arguments)
        if sum(turn["value"].count("<image>") for turn in turns) != len(images):
            return None
    text, answers = "", []
    if system is not None:
        text += f"{before}system{behind}{system}{end}{gap}"
    for turn in turns:
        text += before + {"human": "user", "gpt": "assistant"}[turn["from"]] + behind
        start = len(text)
        text += turn["value"] + end
        if turn["from"] == "gpt" and turn["value"]:
            answers.append((start, len(text)))
        text += gap
    tokens, labels, at = [], [], 0
    for number, part in enumerate(text.split("<image>") if images else [text]):
        if number:
            tokens.append(-200)
            labels.append(IGNORE_INDEX)
            at += len("<image>")
        encoding = tokenizer.encode(part, add_special_tokens=False)
        for token, (_, stop) in zip(encoding.ids, encoding.offsets):
            first = stop - 1 + at  # the last character of the token
            tokens.append(token)
            labels.append(token if any(a <= first < b for a, b in answers) else IGNORE_INDEX)
        at += len(part)
    return tokens, spans_of(tokens, labels), False


# ---- the order of samples ------------------------------------------------------------------------------------------


class SplitMix64:
    """src/base/random.h."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def permutation(self, n):
        """Fisher and Yates, from the end."""
        order = list(range(n))
        for i in range(n - 1, 0, -1):
            j = (self.next() * (i + 1)) >> 64
            order[i], order[j] = order[j], order[i]
        return order


def order_golden(checkout):
    class Torch:
        generator = None

        @staticmethod
        def randperm(n, generator=None):
            del generator
            return torch.tensor(Torch.generator.permutation(n), dtype=torch.long)

    names = ["split_to_even_chunks", "get_modality_length_grouped_indices", "get_length_grouped_indices"]
    trainer = functions_of(os.path.join(checkout, "llava", "train", "llava_trainer.py"), names, {"torch": Torch})
    rng = random.Random(7)
    cases = []
    for n, share, batch, world in [(1, 0, 2, 1), (7, 1, 2, 1), (40, 0.5, 4, 1), (41, 0.7, 4, 2), (64, 0.25, 4, 4),
                                   (65, 0.9, 2, 3), (30, 0, 4, 2), (30, 1, 3, 3), (5, 0.5, 8, 2), (100, 0.5, 1, 4)]:
        lengths = [rng.randint(1, 30) * (1 if rng.random() < share else -1) for _ in range(n)]
        for epoch in range(2):
            Torch.generator = SplitMix64(17)
            # The seed of an epoch: the epoch's number of draws from the seed's generator.
            for _ in range(epoch):
                Torch.generator.next()
            Torch.generator = SplitMix64(Torch.generator.next())
            order = trainer["get_modality_length_grouped_indices"](lengths, batch, world)
            assert sorted(order) == list(range(n))
            cases.append({"lengths": lengths, "batch_size": batch, "chunks": world, "seed": 17, "epoch": epoch,
                          "order": order})
    make_text_json("order.json", cases)


def make_text_json(name, value):
    with open(os.path.join(OUT, name), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("llava")
    checkout = arguments.parse_args().llava
    os.makedirs(OUT, exist_ok=True)
    train = load_train(checkout)
    proto = train_vocabulary()
    sp = sentencepiece.SentencePieceProcessor(model_proto=proto)
    write_vocabulary("bos", sp, True)
    write_vocabulary("no_bos", sp, False)
    cases = []

    def add(template, vocabulary, legacy, max_length, number, found):
        case = {"template": template, "vocabulary": vocabulary, "legacy": legacy, "max_length": max_length,
                "record": number}
        if found:
            case |= {"tokens": found[0], "spans": found[1], "mismatch": found[2]}
        cases.append(case)

    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "tokenizer.model")
        with open(path, "wb") as file:
            file.write(proto)
        for template, vocabulary, legacy, max_length, numbers in [
                ("vicuna_v1", "bos", True, 2048, RECORDS), ("vicuna_v1", "bos", False, 2048, RECORDS),
                ("vicuna_v1", "bos", True, 100, RECORDS[:48:3]), ("v1_mmtag", "bos", False, 2048, RECORDS[:9]),
                ("llava_llama_2", "bos", True, 2048, RECORDS), ("llava_llama_2", "bos", False, 2048, RECORDS),
                ("mistral_instruct", "bos", True, 2048, RECORDS), ("mistral_instruct", "bos", False, 2048, RECORDS[::2]),
                ("plain", "bos", True, 2048, RECORDS), ("plain", "bos", False, 2048, RECORDS),
                ("chatml_direct", "bos", True, 2048, RECORDS), ("chatml_direct", "bos", False, 2048, RECORDS),
                ("chatml_direct", "no_bos", True, 2048, RECORDS), ("chatml_direct", "no_bos", False, 2048, RECORDS)]:
            tokenizer = llama_tokenizer(path, legacy, vocabulary == "bos", max_length)
            for number, record in enumerate(RECORDS):
                if any(record is r for r in numbers):
                    add(template, vocabulary, legacy, max_length, number,
                        run_llava(train, template, tokenizer, record))
    for chat in CHATS:
        tokenizer = tokenizer_of_gguf(chat[1])
        for number, record in enumerate(RECORDS):
            add(chat[0], chat[1], True, 2048, number, run_chat(train, chat, tokenizer, record))
    make_text_json("labels.json", {"records": RECORDS, "cases": cases})
    counts = {}
    for case in cases:
        key = (case["template"], case["vocabulary"], case["legacy"], case["max_length"])
        kind = "refused" if "tokens" not in case else "mismatch" if case["mismatch"] else "labels" if case["spans"] else "none"
        counts.setdefault(key, {}).setdefault(kind, 0)
        counts[key][kind] += 1
    for key, kinds in counts.items():
        print(*key, kinds)
    order_golden(checkout)


if __name__ == "__main__":
    main()
