#!/usr/bin/env python3
"""Pieces of some texts by the pre-tokenizers of published tokenizer.json files, cut by the library `tokenizers`.

    tests/golden/record_pretokenizers.py > tests/golden/pretokenizers.jsonl
"""
import json
from tokenizers import Regex
from tokenizers.pre_tokenizers import Digits, Punctuation, Sequence, Split


def split(pattern):
    return Split(Regex(pattern), "isolated")


ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
CAPITALS = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
CHINESE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
RULES = {
    "llama-bpe": split(ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + BLANKS),
    "qwen2": split(ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + BLANKS),
    "qwen35": split(ENDINGS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + BLANKS),
    "tekken": split(WORD + "|" + CAPITALS + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + BLANKS),
    "gpt-4o": split(WORD + ENDINGS + "?|" + CAPITALS + ENDINGS + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + BLANKS),
    "gpt-2": GPT2,
    "smollm": Sequence([Digits(individual_digits=True), GPT2]),
    "falcon": Sequence([Punctuation("contiguous"), GPT2, split("[0-9][0-9][0-9]")]),     # as llama.cpp cuts
    "deepseek-coder": Sequence([split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CHINESE), Digits(individual_digits=True)]),
    "deepseek-v3": Sequence([split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                             split(r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|""" + BLANKS)]),
}
TEXTS = [
    "Hello, World!  It's 12345678 o'clock; WE'LL see.\n\n\nNo?",
    "camelCase HTTPServer parseXMLDoc iOS ÉcoleNormale éÉ ǅungla",
    "    indented\n\tcode(x){ return x/2; } // a/b\r\n",
    "trailing blanks   ", "   ", "\n\n \n", "\t\tx", "a  b   c",
    "Ünïcödé naïve café e\u0301 (combining) हिन्दी ไทย 한국어 日本語テスト 中文字符",
    "100,000.50 $9.99 50% 3/4 ½ Ⅷ １２３ ٣٤٥",
    "a_b-c+d=e<f>g^h~i|j`k", "'S 'Re 'LL 'x ’s", "email@example.com https://a.b/c?d=e#f",
    "🙂👩\u200d🔬 text🙂", "\u00a0no\u2003break\u3000space", "A1B2C3 x86_64 v1.2.3-rc4", "((((()))))!!!...???\n!\n",
    "don't can't I'm you're they've he'd she'll DON'T I'M",
]
for name, rule in RULES.items():
    for text in TEXTS:
        print(json.dumps({"pre": name, "text": text, "pieces": [p for p, _ in rule.pre_tokenize_str(text)]}, ensure_ascii=False))
