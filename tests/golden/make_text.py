#!/usr/bin/env python3
"""Makes tests/golden/text: small vocabularies as GGUF, and what their reference tokenizers make of strings.json.

    python make_text.py LLAVA [--llama-cpp]

LLAVA is a checkout of https://github.com/haotian-liu/LLaVA, of which llava/conversation.py, llava/mm_utils.py and
llava/constants.py are run. Needs sentencepiece, tokenizers, transformers, torch, gguf and numpy. With --llama-cpp
(llama-cpp-python), llama.cpp tokenizes the same strings with the same files, and every difference is printed.

References: sentencepiece for "spm" and "spm_bare"; Hugging Face tokenizers for the byte-level vocabularies, with
the pre-tokenizers published in tokenizer.json of GPT-2, SmolLM2, Qwen2 and LLaMA-3; LLaVA itself for prompts and
conversations. Bytes that are not UTF-8 are outside what these take: there encode_bytes and spm_bytes decide.
"""

import argparse
import importlib
import io
import json
import os
import random
import sys
import types
import unicodedata

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "text")
SEED = 2410

# ---- text to train on ----------------------------------------------------------------------------------------------

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind at all.",
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "What is in the picture? There is a cat on a chair; it's looking at the window.",
    "We've measured 576 image tokens, then 288, 144 and 72: that's a pyramid.",
    "I'll say it again: they're not going to, I'd think, but you'd know better than I'm able to.",
    "Large vision-language models read pictures as hundreds of tokens, and drop most of them in deeper layers.",
    "USER: describe the image. ASSISTANT: The image shows a street with two bicycles and a red bus.",
    "def forward(self, x):\n    for layer in self.layers:\n        x = x + layer(x)\n    return x\n",
    "#include <stdio.h>\n\nint main(void) {\n\tprintf(\"hello, world\\n\");\n\treturn 0;\n}\n",
    "Der schnelle braune Fuchs springt über den faulen Hund. Straße, Größe, Übung, ähnlich.",
    "Le cœur a ses raisons que la raison ne connaît point; où êtes-vous, déjà là-bas ?",
    "El niño comió piñas en la mañana. ¿Qué pasó? ¡Nada!",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "敏捷的棕色狐狸跳过了懒狗。图片里有什么？这是一只猫。",
    "いろはにほへと ちりぬるを。写真には猫が写っています。",
    "다람쥐 헌 쳇바퀴에 타고파. 사진에 무엇이 있습니까?",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر.",
    "दुनिया में सबसे अच्छी तस्वीर कौन सी है?",
    "1, 2, 3, 10, 100, 1000, 12345, 3.14159, 2026-11-22, 1e-5, 0x1F600.",
    "Smile 😀 and wave 👋🏽; the family 👨‍👩‍👧‍👦 and the flag 🏳️‍🌈 say hello.",
]


def corpus():
    """A few thousand lines of the sentences above, cut and recombined."""
    rng = random.Random(SEED)
    lines = list(SENTENCES)
    words = [w for s in SENTENCES for w in s.split(" ")]
    for _ in range(3000):
        lines.append(" ".join(rng.choice(words) for _ in range(rng.randint(4, 14))))
        lines.append(rng.choice(SENTENCES))
    for _ in range(300):
        lines.append(" " * rng.randint(2, 8) + rng.choice(SENTENCES) + "\n" * rng.randint(0, 2))
    return lines


# ---- strings to tokenize -------------------------------------------------------------------------------------------

HAND_WRITTEN = SENTENCES + [
    "", " ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\n \n", " \n", "\t\t\t", "a", " a", "a ", " a ", "  a", "a  b",
    "Hello", "Hello world", " Hello  world ", "hello\nworld", "hello\r\nworld\r\n", "hello \n world", "a\n\n\nb",
    "a   \n   b", "tabs\tand\tmore\t\ttabs", "    indented", "trailing   ", "a\u00a0b", "a\u2003b", "a\u3000b",
    "a\u200bb", "a\u180eb", "\u180e \u180e", "a\u0085b", "!\u0085!", "a \u0085 b", "!\u180e!", "\u0085\u0085", "\x0b\x0c", "a\x1c\x1db", "\x00", "a\x00b", "\x01\x02\x7f",
    "it's", "IT'S", "It'S we'Re they'LL I'M you'D can'T", "don't", "'tis", "''", "'s's", "x'll'd've", "'\u017f", "a'\u017fb", "'RE",
    "1", "12", "123", "1234", "12345678901", "3.14", "1,000,000", "a1b2c3", "x86_64", "\u0661\u0662\u0663", "\u00bd\u00b2\u2460\u2167", "1\u0301",
    "CamelCaseWords", "snake_case_words", "SCREAMING", "miXeD CaSe", "\u00dcber STRASSE \u00df \u1e9e", "\u01c5", "\u0130\u0131",
    "e\u0301", "\u00e9", "n\u0303o", "\u0301", " \u0301a", "a\u0301\u0302\u0303b", "\u0958", "\uac00\u1100\u1161", "\u202eabc\u202c",
    "😀", "😀😀😀", "👨\u200d👩\u200d👧\u200d👦", "👋🏽", "🏳\ufe0f\u200d🌈", "🇩🇪🇫🇷", "1\ufe0f\u20e3", "a😀b", " 😀 ",
    "中文", "中文 english 中文", "写真には猫", "한국어", "ไทย", "עברית", "العربية", "مَكْتُوب", "हिन्दी", "தமிழ்", "\U00020000\U0002a6d6", "\U0001d4d0\U0001d7d8",
    "\ufeffbom", "\ufffd", "\ufffd\ufffd a", "\ue000", "\U0010fffd", "\u2581", "a\u2581b", "\u2581\u2581", " \u2581 ",
    "!", "!!!", "?!", "...", "…", "—", "“quoted”", "(a)[b]{c}", "$100 + 5% = <x> ^~|", "a.b,c;d:e", "C++", "a->b", "x=1;y=2", "//", "/*x*/", "&&||",
    "http://example.org/a?b=c&d=e#f", "user@example.org", "C:\\path\\file", "`code`", "**bold**", "# Title\n\n- item\n", "| a | b |",
    "for(i=0;i<10;i++){\n\tx[i]=i*i;\n}\n", "if (x == 1) {\n    return \"a\\tb\";\n}", "SELECT * FROM t WHERE a='b';",
    "<s>", "</s>", "<unk>", "<s> a</s>", "a</s>b", "</s></s>", "</s>\n", " </s> ", "<s", "s>", "< s>", "<<s>>", "<</s>s>", "</s",
    "<0x0A>", "<0x41>b", "<|endoftext|>", "a<|endoftext|>b", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_start|>", "<|im_start", "|im_end|>", "<|im_end|><|endoftext|>", "<|im_end|>>", "<<|im_end|>",
    "<tag>", "a<tag>b", "<tag><tag>>", "<tag>>", "<ta<tag>g>", " <tag> ", "<tag>\n<tag>> x", "<tag>>>", "<tag><tag>>", "<tag>a>",
    "<image>", "a<image>b", "<Image>",
    " aaaaaaaaq", "zqzq zqzqa", "antidisestablishmentarianism", "Donaudampfschifffahrtsgesellschaftskapitän", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "abababababababab", "x" * 200, " " * 70, "\n" * 40, "ab " * 30, "中" * 50, "é" * 33, "12" * 40,
]

INVALID = [
    "ff", "80", "c3", "c328", "e282", "e28261", "e2826162", "f09f98", "f09f9861", "f09f9820", "c080", "eda080", "f4908080",
    "f8888080", "f08080af", "e080af", "fffefdfc", "61ff62", "ff20ff", "20ff2020fe20", "c3a9ff c3a9".replace(" ", ""), "27ff73", "31ff32", "0aff0a",
    "616263e282", "e4b8ade4b8", "48656c6c6f20c3", "80818283", "c3c3c3a9", "e2e282ac", "f0f09f9880", "003c2f733eff", "ff3c2f733e80",
    "e2963c2f733e", "e296", "20e29620", "3c7c696d5f656e647c3ec0",
]


def random_strings(n):
    rng = random.Random(SEED + 1)
    assigned = [c for c in range(0x20, 0x30000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    ascii_mix = [chr(c) for c in range(0x20, 0x7F)] + ["\n", "\t", " ", " ", "'", "'s", "'LL", "\r\n"]
    spaces = [" ", "  ", "\n", "\t", "\r", "\u00a0", "\u3000", "\u2028", "x", "1", "!", "é"]
    words = [w for s in SENTENCES for w in s.split(" ")]
    result = []
    for i in range(n):
        kind = i % 5
        if kind == 0:
            s = "".join(chr(rng.choice(assigned)) for _ in range(rng.randint(1, 10)))
        elif kind == 1:
            s = "".join(rng.choice(ascii_mix) for _ in range(rng.randint(1, 24)))
        elif kind == 2:
            s = "".join(rng.choice(spaces) for _ in range(rng.randint(1, 16)))
        elif kind == 3:
            s = rng.choice(["", " ", "\n"]).join(rng.choice(words) for _ in range(rng.randint(1, 6)))
        else:
            low = rng.choice([0xA0, 0x370, 0x400, 0x5D0, 0x900, 0x1E00, 0x2000, 0x3040, 0x4E00, 0xAC00, 0x1F300])
            block = [c for c in range(low, low + 0x90) if unicodedata.category(chr(c)) != "Cn"]
            s = "".join(rng.choice([chr(rng.choice(block))] * 4 + [" ", "a"]) for _ in range(rng.randint(1, 12)))
        result.append(s)
    return result


def random_bytes(n):
    rng = random.Random(SEED + 2)
    pool = [b"a", b" ", b"\n", b"'s", b"1", "é".encode(), "中".encode(), "😀".encode(), b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f"]
    return [b"".join(rng.choice(pool) for _ in range(rng.randint(1, 12))) for _ in range(n)]


def all_strings():
    strings = [s.encode() for s in HAND_WRITTEN + random_strings(150)]
    return strings + [bytes.fromhex(h) for h in INVALID] + random_bytes(30)


def is_utf8(raw):
    try:
        raw.decode()
        return True
    except UnicodeDecodeError:
        return False


def as_json(raw):
    return {"text": raw.decode()} if is_utf8(raw) else {"hex": raw.hex(), "text": raw.decode(errors="replace")}


def write_json(name, value):
    with open(os.path.join(OUT, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")


# ---- GGUF ----------------------------------------------------------------------------------------------------------


def write_gguf(name, model, tokens, types, *, scores=None, merges=None, pre=None, bos=None, eos=None, unk=None,
               add_bos=None, add_space_prefix=None, chat_template=None):
    writer = gguf.GGUFWriter(os.path.join(OUT, name + ".gguf"), "llama")
    writer.add_name("test vocabulary " + name)
    # What llama.cpp wants before it reads a vocabulary.
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(model)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list([t.encode() for t in tokens])
    writer.add_token_types(types)
    if scores is not None:
        writer.add_token_scores(scores)
    if merges is not None:
        writer.add_token_merges(merges)
    if bos is not None:
        writer.add_bos_token_id(bos)
    if eos is not None:
        writer.add_eos_token_id(eos)
    if unk is not None:
        writer.add_unk_token_id(unk)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    if add_space_prefix is not None:
        writer.add_add_space_prefix(add_space_prefix)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


# ---- SentencePiece -------------------------------------------------------------------------------------------------


def train_spm(**options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, model_type="bpe", vocab_size=1000,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        split_digits=True, num_threads=1, minloglevel=2, max_sentence_length=100000, **options)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def spm_types(sp):
    types = []
    for i in range(sp.get_piece_size()):
        if sp.is_unknown(i):
            types.append(gguf.TokenType.UNKNOWN)
        elif sp.is_control(i):
            types.append(gguf.TokenType.CONTROL)
        elif sp.is_byte(i):
            types.append(gguf.TokenType.BYTE)
        elif sp.id_to_piece(i) in ("<tag>", "<tag>>"):
            types.append(gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
    return types


def split_at(text, specials):
    """Cuts at the special texts, the longest first where several start: a list of (is special, part)."""
    parts, start, i = [], 0, 0
    while i < len(text):
        found = max((s for s in specials if text.startswith(s, i)), key=len, default=None)
        if found is None:
            i += 1
            continue
        if start < i:
            parts.append((False, text[start:i]))
        parts.append((True, found))
        i += len(found)
        start = i
    if start < len(text):
        parts.append((False, text[start:]))
    return parts


def spm_encode(sp, text, specials):
    ids = []
    for special, part in split_at(text, specials):
        ids += [sp.piece_to_id(part)] if special else sp.encode(part)
    return ids


def spm_golden(name, sp, strings, **metadata):
    pieces = [sp.id_to_piece(i) for i in range(sp.get_piece_size())]
    write_gguf(name, "llama", pieces, spm_types(sp), scores=[sp.get_score(i) for i in range(len(pieces))],
               bos=sp.bos_id(), eos=sp.eos_id(), unk=sp.unk_id(), **metadata)
    specials = ["<s>", "</s>", "<unk>"]
    plain, special, decoded = [], [], []
    for raw in strings:
        if is_utf8(raw):
            text = raw.decode()
            plain.append(sp.encode(text))
            if name == "spm" and text:
                assert merge_run(sp, "\u2581" + text.replace(" ", "\u2581")) == plain[-1], text
            special.append(spm_encode(sp, text, specials))
            decoded.append(None if sp.unk_id() in plain[-1] else sp.decode(plain[-1]))
        else:
            plain.append(spm_bytes(sp, raw) if sp.piece_to_id("<0x00>") != sp.unk_id() else None)
            special.append(None)
            decoded.append(None)
    write_json(name + ".json", {"plain": plain, "special": special, "decoded": decoded})
    return plain, special


def spm_bytes(sp, raw):
    """A byte outside well-formed characters becomes its byte token, and parts what stands on its two sides."""
    ids, run = [], "\u2581"
    for c in raw.decode(errors="surrogateescape").replace(" ", "\u2581"):
        if 0xDC80 <= ord(c) <= 0xDCFF:
            ids += merge_run(sp, run) + [sp.piece_to_id("<0x%02X>" % (ord(c) - 0xDC00))]
            run = ""
        else:
            run += c
    return ids + merge_run(sp, run)


def merge_run(sp, text):
    """SentencePiece's BPE by its definition: the best neighbours merge first, the leftmost of equals."""
    symbols = list(text)

    def score(piece):
        i = sp.piece_to_id(piece)
        known = sp.id_to_piece(i) == piece and not (sp.is_control(i) or sp.is_unknown(i) or sp.is_byte(i))
        return sp.get_score(i) if known else None

    while True:
        best, where = None, -1
        for i in range(len(symbols) - 1):
            s = score(symbols[i] + symbols[i + 1])
            if s is not None and (best is None or s > best):
                best, where = s, i
        if where < 0:
            break
        symbols[where:where + 2] = [symbols[where] + symbols[where + 1]]
    ids = []
    for symbol in symbols:
        if score(symbol) is not None:
            ids.append(sp.piece_to_id(symbol))
        else:
            ids += [sp.piece_to_id("<0x%02X>" % b) for b in symbol.encode()]
    return ids


# ---- byte-level BPE ------------------------------------------------------------------------------------------------

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(expression):
    return pre_tokenizers.Split(Regex(expression), "isolated")


def letters_only():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


PRE_TOKENIZERS = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    "smollm": lambda: pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]),
    "qwen2": lambda: pre_tokenizers.Sequence([split(QWEN2), letters_only()]),
    "llama-bpe": lambda: pre_tokenizers.Sequence([split(LLAMA3), letters_only()]),
    # llama.cpp's own fallback.
    "default": lambda: pre_tokenizers.Sequence([
        split(r"[\p{P}\$\+<=>\^~\|]+"), split(GPT2), split(r"\p{N}+"), split(r"[0-9][0-9][0-9]"), letters_only()]),
}

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "</s>"]
USER_DEFINED = ["<tag>", "<tag>>"]


def train_bpe(pre):
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=SPECIALS, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(corpus(), trainer)
    if pre == "llama-bpe":
        # Words that are tokens without a merge that makes them, which ignore_merges is for.
        state = json.loads(tokenizer.to_str())
        vocabulary = state["model"]["vocab"]
        for word in ["\u0120aaaaaaaaq", "zqzq", "123"]:
            vocabulary.setdefault(word, len(vocabulary))
        tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in USER_DEFINED])
    return tokenizer


def without_specials(tokenizer):
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if not t["special"]]
    return Tokenizer.from_str(json.dumps(state))


def byte_letters():
    """GPT-2's bytes_to_unicode."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table, n = {}, 0
    for b in range(256):
        if b in shown:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + n)
            n += 1
    return table


def cut_words(tokenizer, text):
    """Words in the byte alphabet, of a text where a byte that is not UTF-8 is a lone surrogate."""
    scrubbed = "".join("\x01" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)
    return [w for w, _ in tokenizer.pre_tokenizer.pre_tokenize_str(scrubbed)] if scrubbed else []


def encode_bytes(tokenizer, raw, specials):
    """Any bytes: words are cut as if a byte outside well-formed characters were U+0001, and then hold the byte."""
    letters = byte_letters()
    text = raw.decode(errors="surrogateescape")
    ids = []
    for special, part in split_at(text, specials):
        if special:
            ids.append(tokenizer.token_to_id(part))
            continue
        words = cut_words(tokenizer, part)
        part_bytes = part.encode(errors="surrogateescape")
        assert sum(map(len, words)) == len(part_bytes)
        at = 0
        for word in words:
            spelt = "".join(letters[b] for b in part_bytes[at:at + len(word)])
            at += len(word)
            ids += [t.id for t in tokenizer.model.tokenize(spelt)]
    return ids


def bpe_golden(name, pre, strings):
    tokenizer = train_bpe(pre)
    plain_tokenizer = without_specials(tokenizer)
    state = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = [None] * len(vocabulary)
    for token, i in vocabulary.items():
        tokens[i] = token
    types_ = [gguf.TokenType.CONTROL if t in SPECIALS else gguf.TokenType.USER_DEFINED if t in USER_DEFINED
              else gguf.TokenType.NORMAL for t in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in state["model"]["merges"]]
    write_gguf(name, "gpt2", tokens, types_, merges=merges, pre=pre, bos=tokenizer.token_to_id("<|im_start|>"),
               eos=tokenizer.token_to_id("<|im_end|>"), add_bos=True if pre == "llama-bpe" else None)
    plain, special, words = [], [], []
    for raw in strings:
        words.append([len(w) for w in cut_words(tokenizer, raw.decode(errors="surrogateescape"))])
        if is_utf8(raw):
            text = raw.decode()
            plain.append(plain_tokenizer.encode(text, add_special_tokens=False).ids)
            special.append(tokenizer.encode(text, add_special_tokens=False).ids)
            assert encode_bytes(plain_tokenizer, raw, USER_DEFINED) == plain[-1], text
            assert encode_bytes(tokenizer, raw, SPECIALS + USER_DEFINED) == special[-1], text
        else:
            plain.append(encode_bytes(plain_tokenizer, raw, USER_DEFINED))
            special.append(encode_bytes(tokenizer, raw, SPECIALS + USER_DEFINED))
    write_json(name + ".json", {"pre": pre, "words": words, "plain": plain, "special": special})
    return tokenizer, plain, special


# ---- LLaVA: prompts with pictures, conversations -------------------------------------------------------------------


def llava_module(checkout, name):
    """One file of LLaVA, without the package's __init__, which loads the models."""
    if "llava" not in sys.modules:
        package = types.ModuleType("llava")
        package.__path__ = [os.path.join(checkout, "llava")]
        sys.modules["llava"] = package
    return importlib.import_module("llava." + name)


PROMPTS = [
    "", "<image>", "a", "<image>\nWhat is this?", "<image><image>", " <image> ", "What is <image> and <image>?",
    "A chat. USER: <image>\nWhat is in the picture? ASSISTANT:", "x</s><image>y", "<image></s>", "<imag<image>e>",
    "<image>\n<image>\n  two spaces", "<image", "é<image>中",
]


class ChunkTokenizer:
    """What LLaVA asks of a tokenizer: every chunk on its own, behind a BOS token."""

    def __init__(self, bos_token_id, encode):
        self.bos_token_id = bos_token_id
        self.encode = encode

    def __call__(self, text):
        bos = [] if self.bos_token_id is None else [self.bos_token_id]
        return types.SimpleNamespace(input_ids=bos + self.encode(text))


def prompt_golden(checkout, sp, bpe):
    tokenizer_image_token = llava_module(checkout, "mm_utils").tokenizer_image_token
    result = {"prompts": PROMPTS}
    # The legacy LLaMA tokenizer of LLaVA's checkpoints: every piece of text between control tokens goes to
    # sentencepiece by itself.
    spm = ChunkTokenizer(sp.bos_id(), lambda text: spm_encode(sp, text, ["<s>", "</s>", "<unk>"]))
    result["spm"] = [tokenizer_image_token(p, spm) for p in PROMPTS]
    for name, bos in (("llama3", bpe["llama3"].token_to_id("<|im_start|>")), ("smollm", None)):
        chunks = ChunkTokenizer(bos, lambda text, t=bpe[name]: t.encode(text, add_special_tokens=False).ids)
        result[name] = [tokenizer_image_token(p, chunks) for p in PROMPTS]
    write_json("prompts.json", result)


CONVERSATIONS = [
    [("user", "What is in the picture?")],
    [("user", "<image>\nWhat is this?"), ("assistant", "A cat.")],
    [("user", "<image>\nWhat is this?"), ("assistant", "A cat."), ("user", "What colour?")],
    [("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"), ("user", "5\n ")],
    [("user", "separators: ### </s> <s> <|im_end|> [INST] <<SYS>> ü 😀")],
    [("user", "a"), ("assistant", ""), ("user", "b")],
    [],
]
SYSTEMS = [None, "You see.", "", "Two\nlines </s>"]

CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
          "+ '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
# As published with ChatML's documentation, Qwen2-7B-Instruct, SmolLM2-135M-Instruct and Meta-Llama-3-8B-Instruct.
CHAT_TEMPLATES = {
    "chatml": CHATML,
    "qwen": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
            "You are a helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
            "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
            "{{ '<|im_start|>assistant\n' }}{% endif %}",
    "smollm": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>"
              "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
              "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>'"
              " + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if "
              "loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
              "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
}


def render_llava(module, template, messages, system):
    conversation = template.copy()
    if system is not None:
        prefix = "<|im_start|>system\n" if conversation.sep_style == module.SeparatorStyle.MPT else ""
        conversation.system = prefix + system
    for role, text in messages:
        conversation.append_message(conversation.roles[0 if role == "user" else 1], text)
    conversation.append_message(conversation.roles[1], None)
    try:
        return conversation.get_prompt()
    except (AssertionError, TypeError):  # what this style cannot hold
        return None


def render_jinja(tokenizer, template, messages, system):
    chat = [] if system is None else [{"role": "system", "content": system}]
    chat += [{"role": role, "content": text} for role, text in messages]
    if not chat:
        return None
    prompt = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, add_generation_prompt=True)
    return prompt.removeprefix("<s>")  # the BOS token is the tokenizer's business


def conversation_golden(checkout, tokenizer):
    from transformers import PreTrainedTokenizerFast

    module = llava_module(checkout, "conversation")
    templates = dict(module.conv_templates)
    templates["mistral_orca"] = module.Conversation(
        system="<|im_start|>system\nYou are MistralOrca, a large language model trained by Alignment Lab AI. Write out "
               "your reasoning step-by-step to be sure you get the right answers!",
        roles=("<|im_start|>user\n", "<|im_start|>assistant\n"), version="mpt", messages=(), offset=0,
        sep_style=module.SeparatorStyle.MPT, sep="<|im_end|>")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    cases = []
    for name in sorted(templates) + sorted(CHAT_TEMPLATES):
        for number, messages in enumerate(CONVERSATIONS):
            for system in SYSTEMS if number < 3 else SYSTEMS[:1]:
                if name in templates:
                    prompt = render_llava(module, templates[name], messages, system)
                else:
                    prompt = render_jinja(fast, CHAT_TEMPLATES[name], messages, system)
                    if prompt is None:
                        continue
                cases.append({"template": name, "system": system, "conversation": number, "prompt": prompt})
    write_json("conversations.json", {"conversations": CONVERSATIONS, "cases": cases})


# ---- llama.cpp as a second opinion ---------------------------------------------------------------------------------


def compare_with_llama_cpp(name, strings, plain, special):
    import llama_cpp

    model = llama_cpp.Llama(os.path.join(OUT, name + ".gguf"), vocab_only=True, verbose=False)
    same = different = 0
    for raw, a, b in zip(strings, plain, special):
        for ids, parse in ((a, False), (b, True)):
            if ids is None or not is_utf8(raw):  # where it throws, or takes in the bytes that follow
                continue
            found = model.tokenize(raw, add_bos=False, special=parse)
            same += found == ids
            if found != ids:
                different += 1
                print(f"{name}: special={parse} {raw!r}: llama.cpp {found}, reference {ids}")
    print(f"{name}: llama.cpp agrees on {same}, differs on {different}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("llava")
    arguments.add_argument("--llama-cpp", action="store_true")
    options = arguments.parse_args()
    os.makedirs(OUT, exist_ok=True)
    strings = all_strings()
    write_json("strings.json", [as_json(s) for s in strings])

    results = {}
    sp = train_spm(byte_fallback=True, character_coverage=0.995)
    results["spm"] = spm_golden("spm", sp, strings)
    bare = train_spm(character_coverage=0.995, add_dummy_prefix=False, user_defined_symbols=["<tag>", "<tag>>"])
    results["spm_bare"] = spm_golden("spm_bare", bare, strings, add_space_prefix=False, add_bos=False)
    bpe = {}
    for name, pre in (("gpt2", "gpt-2"), ("smollm", "smollm"), ("qwen2", "qwen2"), ("llama3", "llama-bpe"),
                      ("default", "default")):
        bpe[name], *results[name] = bpe_golden(name, pre, strings)
    prompt_golden(options.llava, sp, bpe)
    conversation_golden(options.llava, bpe["gpt2"])
    if options.llama_cpp:
        for name, (plain, special) in results.items():
            if name != "spm_bare":  # llama.cpp ends the process where a byte has no token
                compare_with_llama_cpp(name, strings, plain, special)


if __name__ == "__main__":
    main()
