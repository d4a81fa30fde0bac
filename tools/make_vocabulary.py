#!/usr/bin/env python3
"""Makes models/pocket/vocabulary.gguf: the pocket model's tokens, from the text that it is trained on.

    pip install sentencepiece==0.2.3 gguf==0.19.0 numpy==2.4.6 protobuf==7.36.2
    python tools/make_vocabulary.py SCENES [--golden N FILE]

SCENES is the program that renders pictures (make tools); its training split gives the text, LLaVA's "v1" and "v0"
templates the words around it. With --golden, the vocabulary that is there stays, and N texts with what sentencepiece
makes of them go to FILE (tests/golden/pocket/encodings.json is made with N = 120).
"""

import argparse
import io
import json
import os
import random
import re
import subprocess
import tempfile

import gguf
import sentencepiece

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = os.path.join(ROOT, "models", "pocket", "vocabulary.gguf")
SIZE = 1152  # all words that are said, but not read, are whole then
CONTEXT = 512  # tokens; what a geometry file says goes before it
SYSTEMS = [
    "A chat between a curious {} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {}'s questions.".format(who, who)
    for who in ("human", "user")
]
# Characters that a question may have and no training text has: letters in capitals, common signs.
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()+-*/=%$#<>&_"


def records(scenes, kind, split, count, seed, *more):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([scenes, "--out", folder, "--kind", kind, "--split", split, "--count", str(count), "--seed",
                        str(seed), "--no-images", *more], check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(folder, "%s-%s.json" % (split, kind)), encoding="utf-8") as file:
            return json.load(file)


def turns(record):
    values = [turn["value"].replace("<image>\n", "").replace("<image>", "") for turn in record["conversations"]]
    return list(zip(values[::2], values[1::2]))


def small(text):
    """What is read in pictures is said in capitals. Those stay single letters, so that it is spelt: the vocabulary
    learns such words small."""
    return re.sub(r"\b[A-Z]+\b", lambda word: word[0].lower(), text)


def corpus(scenes):
    """Lines in the proportions of training: templates, questions, answers, captions."""
    lines = []
    for record in records(scenes, "questions", "train", 20000, 1, "--text-only", "0.05"):
        asked = [(small(question), small(answer)) for question, answer in turns(record)]
        lines += ["USER: %s ASSISTANT: %s" % turn for turn in asked]
        # Behind "<image>" and a line's end a word has no space before it.
        lines.append(":" + asked[0][0])
    lines += [small(turns(record)[0][1]) for record in records(scenes, "captions", "train", 20000, 1)]
    lines += SYSTEMS * 4000 + ["###Human: ", "###Assistant: "] * 500
    lines.append(ALPHABET)
    return lines


def train(lines):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=SIZE, character_coverage=1.0,
        byte_fallback=True, split_digits=True, add_dummy_prefix=True, remove_extra_whitespaces=False,
        normalization_rule_name="identity", unk_id=0, bos_id=1, eos_id=2, pad_id=-1, hard_vocab_limit=False,
        num_threads=1, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def write(processor):
    tokens, scores, types = [], [], []
    for i in range(processor.get_piece_size()):
        tokens.append(processor.id_to_piece(i).encode())
        scores.append(processor.get_score(i))
        types.append(gguf.TokenType.UNKNOWN if processor.is_unknown(i) else
                     gguf.TokenType.CONTROL if processor.is_control(i) else
                     gguf.TokenType.BYTE if processor.is_byte(i) else gguf.TokenType.NORMAL)
    os.makedirs(os.path.dirname(MODEL), exist_ok=True)
    writer = gguf.GGUFWriter(MODEL, "llama")
    writer.add_name("pocket vocabulary")
    writer.add_context_length(CONTEXT)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read():
    """sentencepiece's model of the GGUF: the file itself is what is tested."""
    from sentencepiece import sentencepiece_model_pb2 as proto
    fields = gguf.GGUFReader(MODEL).fields
    value = lambda key: fields["tokenizer.ggml." + key].contents()
    kinds = {gguf.TokenType.UNKNOWN: 2, gguf.TokenType.CONTROL: 3, gguf.TokenType.BYTE: 6, gguf.TokenType.NORMAL: 1}
    model = proto.ModelProto()
    for token, score, kind in zip(value("tokens"), value("scores"), value("token_type")):
        model.pieces.add(piece=token, score=score, type=kinds[kind])
    model.trainer_spec.model_type = 2  # BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(model.pieces)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def golden(scenes, processor, n, path):
    texts = list(SYSTEMS) + ["", "USER:", "ASSISTANT: yes", "An unseen wörd, 12345 and 🐶.\n  Two spaces."]
    for record in records(scenes, "questions", "test", n, 7, "--held-out", "0.5", "--text-only", "0.1"):
        texts += ["USER: \n%s ASSISTANT: %s" % turn for turn in turns(record)]
    texts += [turns(record)[0][1] for record in records(scenes, "captions", "test", n, 7, "--held-out", "0.5")]
    random.Random(0).shuffle(texts)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps({"text": text, "tokens": processor.encode(text)}, ensure_ascii=False)
                                     for text in texts[:n]) + "\n]\n")


def report(scenes, processor):
    lines = [text for record in records(scenes, "questions", "train", 2000, 2) for turn in turns(record) for text in turn]
    captions = [turns(record)[0][1] for record in records(scenes, "captions", "train", 2000, 2)]
    words = sorted({word for line in lines + captions for word in line.strip("?.").replace(",", "").split() if word.isalpha()})
    whole = [word for word in words if len(processor.encode(word)) == 1]
    mean = lambda texts: sum(len(processor.encode(text)) for text in texts) / len(texts)
    print("%d pieces; %d of %d words whole; a question %.1f tokens, an answer %.1f, a caption %.1f" % (
        processor.get_piece_size(), len(whole), len(words), mean(lines[::2]), mean(lines[1::2]), mean(captions)))
    print("system prompt: %d tokens; not whole: %s" % (len(processor.encode(SYSTEMS[1])), " ".join(
        word for word in words if word not in whole)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenes", help="the program build/scenes")
    parser.add_argument("--golden", nargs=2, metavar=("N", "FILE"))
    arguments = parser.parse_args()
    if arguments.golden:
        golden(arguments.scenes, read(), int(arguments.golden[0]), arguments.golden[1])
        return
    processor = train(corpus(arguments.scenes))
    write(processor)
    report(arguments.scenes, processor)


if __name__ == "__main__":
    main()
