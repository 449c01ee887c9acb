#!/usr/bin/env python3
"""Record chat.jsonl: prompts rendered by the models' own Jinja templates.

usage: record_chat.py GEMMA3_TOKENIZER_CONFIG.json[.gz] TEMPLATES_FOLDER > chat.jsonl

TEMPLATES_FOLDER is llama.cpp's models/templates.  Jinja2 with the settings of transformers'
apply_chat_template (trim_blocks, lstrip_blocks).  gemma4-small is the 31B template without the closed
thought after the generation prompt, which is the published difference of the E2B and E4B template.
The one-line templates of SmolLM2, Qwen2, plain ChatML and Llama 3.0 are written out here.  Templates that are in no folder are made of their neighbours
by the differences that their published copies show: see tokenizer.md.
"""
import gzip
import json
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN2 = CHATML.replace("{% for message in messages %}", (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"))
LLAMA3_0 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PRIMED = """        {%- if not enable_thinking | default(false) -%}
            {{- '<|channel>thought\\n<channel|>' -}}
        {%- endif -%}
"""


def refuse(message):
    raise ValueError(message)


def replaced(text, *pairs):
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def without(text, start, end):
    """text less what stands from start up to end."""
    i = text.index(start)
    return text[:i] + text[text.index(end, i):]


def main():
    opener = gzip.open if sys.argv[1].endswith(".gz") else open
    with opener(sys.argv[1], "rt", encoding="utf-8") as f:
        gemma3 = json.load(f)["chat_template"]

    def template(name):
        with open(f"{sys.argv[2]}/{name}.jinja", encoding="utf-8") as f:
            return f.read()

    large = template("google-gemma-4-31B-it")
    small = replaced(large, (PRIMED, ""))
    first_think = ("'<|think|>\\n'", "'<|think|>'")
    qwen3 = template("Qwen-Qwen3-0.6B")
    tail = "    {{- '<|im_start|>assistant\\n' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n" \
           "        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n"
    thinking = replaced(qwen3, (tail, "    {{- '<|im_start|>assistant\\n<think>\\n' }}\n"))
    instruct = replaced(qwen3, (tail, "    {{- '<|im_start|>assistant\\n' }}\n"))
    instruct = without(instruct, "{%- set ns = namespace(", "{%- for message in messages %}")
    instruct = without(instruct, "        {%- set reasoning_content = '' %}", "        {%- if message.tool_calls %}")
    instruct = replaced(instruct, ("        {%- if message.tool_calls %}",
                                   "        {{- '<|im_start|>' + message.role + '\\n' + content }}\n        {%- if message.tool_calls %}"))
    undated = template("HuggingFaceTB-SmolLM3-3B")
    header = '{{- "## Metadata\\n\\n" -}}'
    dated = replaced(undated, (
        '{{- "Reasoning Mode: "',
        '{%- set today = strftime_now("%d %B %Y") -%}\n{{- "Today Date: " ~ today ~ "\\n" -}}\n{{- "Reasoning Mode: "'), (
        header, '{%- if system_message and "/system_override" in system_message -%}\n'
                '{{- custom_instructions.replace("/system_override", "").rstrip() -}}\n{%- else -%}\n' + header), (
        '{{- "<|im_end|>\\n" -}}\n{# ───── main', '{%- endif -%}\n{{- "<|im_end|>\\n" -}}\n{# ───── main'))
    families = [
        ("gemma2", template("google-gemma-2-2b-it"), "<bos>"),
        ("gemma3", gemma3, "<bos>"),
        ("gemma4-small", small, "<bos>"),
        ("gemma4-large", large, "<bos>"),
        ("llama3", template("meta-llama-Llama-3.1-8B-Instruct"), "<|begin_of_text|>"),
        ("llama3", template("meta-llama-Llama-3.2-3B-Instruct"), "<|begin_of_text|>"),
        ("qwen2.5", template("Qwen-Qwen2.5-7B-Instruct"), ""),
        ("qwen3", template("Qwen-Qwen3-0.6B"), ""),
        ("smollm2", SMOLLM2, ""),
        ("qwen2", QWEN2, ""),
        ("chatml", CHATML, ""),
        ("llama3.0", LLAMA3_0, "<|begin_of_text|>"),
        ("qwen3-instruct", instruct, ""),
        ("qwen3-thinking", thinking, ""),
        ("smollm3", dated, ""),
        ("smollm3-undated", undated, ""),
        ("gemma4-small-first", replaced(small, first_think), "<bos>"),
        ("gemma4-large-first", replaced(large, first_think), "<bos>"),
    ]
    talks = [
        [("user", "Hi")],
        [("user", "  padded \n\u00a0text\u3000\n")],
        [("system", "Be brief."), ("user", "Hi")],
        [("system", " Be brief.\n"), ("user", "\nWhat is 2+2?\n"), ("assistant", " 4 "), ("user", "And 3+3?")],
        [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d\n"), ("user", "e")],
        [("user", "a"), ("assistant", "<|channel>thought\nhm<channel|>b<|channel>x<channel|> c"), ("user", "d")],
        [("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "d")],
        [("user", "<eos><end_of_turn><turn|><|im_end|><|eot_id|>")],
        [("user", "")],
        [("system", "/no_think Be brief. /think \n"), ("user", "a"), ("assistant", "\n\nb"), ("user", "c")],
        [("system", "/think\n"), ("user", "a")],
        [("system", "Speak like a pirate. /system_override "), ("user", "a")],
        [("user", "\u4f60\u597d \U0001f600")],
    ]
    for name, source, bos in families:
        env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        env.globals["raise_exception"] = refuse
        env.globals["strftime_now"] = {"%d %B %Y": "08 July 2025", "%d %b %Y": "26 Jul 2024"}.get
        compiled = env.from_string(source)
        for talk in talks:
            for thinking in (False, True):
                messages = [{"role": r, "content": c} for r, c in talk]
                try:
                    prompt = compiled.render(messages=messages, add_generation_prompt=True, bos_token=bos,
                                             enable_thinking=thinking)
                except ValueError:
                    prompt = None
                row = {"family": name, "thinking": thinking, "turns": talk, "prompt": prompt}
                print(json.dumps(row, ensure_ascii=True))


main()
