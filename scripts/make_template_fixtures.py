#!/usr/bin/env python3
"""Writes tests/fixtures/templates/: what chat templates' makers give, for src/data's tests to match.

mistral-v2.json and mistral-v3.json are mistral-common's, the others transformers' apply_chat_template with the texts
of src/data/templates; python_json.json is Python's json module's. The two small tokenisers are the quickstart's, with
control pieces added: Mistral's in mistral/, ChatML's in chat/. Needs mistral-common, sentencepiece and transformers;
running it twice gives the same bytes:

    python scripts/make_template_fixtures.py tests/fixtures/templates
"""

import importlib.metadata
import json
import pathlib
import shutil
import sys
import tempfile
import warnings

from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.messages import FinetuningAssistantMessage, SystemMessage, ToolMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall, Tool, ToolCall
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer

warnings.simplefilter("ignore")

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "src" / "data" / "templates"
BASE = ROOT / "examples" / "quickstart" / "tokenizer.model"
CONTROL = 3  # of sentencepiece's kinds of pieces
MISTRAL = "[INST] [/INST] [TOOL_CALLS] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS]".split()
CHATML = ["<|im_end|>", "<|im_start|>"]

# A conversation: turns, written "s", "u", "a" (answer), "-" (answer that is not trained) with their text.
CONVERSATIONS = [
    [("u", "Hi"), ("a", "Hello!")],
    [("u", "One?"), ("a", "1"), ("u", "Two?"), ("a", "2"), ("u", "Three?"), ("a", "3")],
    [("s", "Be brief."), ("u", "Hi"), ("a", "Yo.")],
    [("s", "Be brief."), ("u", "Hi"), ("a", "Yo."), ("u", "Bye"), ("a", "Later.")],
    [("u", "One?"), ("-", "no"), ("u", "Two?"), ("a", "yes")],
    [("u", ""), ("a", "Nothing was asked.")],
    [("s", ""), ("u", "Hi"), ("a", "Yo.")],
    [("u", "  leading and trailing  "), ("a", "  kept?  ")],
    [("s", " rule \n"), ("u", "\n\nnewlines\n\n"), ("a", "\nkept?\n")],
    [("u", "\ttab\t"), ("a", "\u00a0\u3000wide spaces\u2003")],
    [("u", "\u00bfQu\u00e9? \u65e5\u672c\u8a9e"), ("a", "\u0414\u0430 \U0001f917 e\u0301")],
    [("u", "def f(x):\n    return x + 1\n"), ("a", "```python\nf(1)  # 2\n```")],
    [("u", "### Response:\nUSER: <|user|>"), ("a", "ASSISTANT: <<SYS>> ### Instruction:")],
    [("u", "Is it blank?"), ("a", " ")],
    [("u", "x" * 60), ("a", "y" * 60 + " {\"a\": [1, 2]}")],
]
# Where a template takes turns in any order.
IN_ANY_ORDER = [
    [("u", "One"), ("u", "Two"), ("a", "Both.")],
    [("u", "Go on"), ("a", "First half."), ("a", "Second half.")],
    [("a", "I speak first."), ("u", "Who are you?"), ("a", "Me.")],
    [("u", "Hi"), ("s", "A later rule"), ("a", "Yo.")],
    [("u", "Say nothing"), ("a", "")],
]
# Text that spells special tokens, which here become them.
SPELLING = [
    [("u", "Stop </s> here"), ("a", "I say <s>hi</s> to you")],
    [("s", "<unk>"), ("u", "<|im_start|>user\nHi<|im_end|>"), ("a", "<|im_end|>")],
]
PROMPTS = [
    [("u", "Hi")],
    [("s", "Be brief."), ("u", " Hi ")],
    [("u", "One?"), ("a", "1"), ("u", "Two?")],
]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place \u2014 \u00e0 peu pr\u00e8s",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer", "default": 1e16, "minimum": 0.5}},
            "required": ["place"],
        },
    },
}
BARE = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


def call(name, arguments, call_id=""):
    return {"name": name, "arguments": arguments, "id": call_id}


def calls(*all_calls):
    return {"role": "assistant", "text": "", "tool_calls": list(all_calls)}


def result(text, call_id="", name=""):
    return {"role": "tool", "text": text, "tool_call_id": call_id, "name": name}


def turns(pairs):
    roles = {"s": "system", "u": "user", "a": "assistant", "-": "assistant"}
    return [{"role": roles[r], "text": t} | ({"train": False} if r == "-" else {}) for r, t in pairs]


def conversation(pairs, tools=()):
    all_turns = []
    for pair in pairs:
        all_turns += [pair] if isinstance(pair, dict) else turns([pair])
    return {"turns": all_turns} | ({"tools": [json.dumps(t, indent=1) for t in tools]} if tools else {})


ID1, ID2 = "abcDEF123", "000000000"
MISTRAL_ONLY = [
    conversation([("s", "First."), ("s", "Second."), ("u", "Hi"), ("a", "Yo.")]),
    conversation([("s", "A rule."), ("a", "I speak first."), ("u", "Who?"), ("a", "Me.")]),
    conversation([("s", "A rule."), ("a", "An answer.")]),
    conversation([("u", "First."), ("u", ""), ("u", "Third."), ("a", "Go"), ("a", "on."), ("-", "not"), ("-", "this")]),
    conversation([("u", "Ignore [/INST] </s><s>[INST]"), ("a", "I say <s>[INST] hi [/INST]</s> [TOOL_CALLS]")]),
    conversation([("u", "q"), ("a", "ends in spaces   "), ("u", "q"), ("a", "   ")]),
    conversation([("u", "Weather?"), ("a", "Where?"), ("u", "Rome"), ("a", "Fine.")], [WEATHER, BARE]),
    conversation([("s", "Be brief."), ("u", "Weather?"), calls(call("get_weather", '{"place": "Rome","days":1E2}', ID1)),
                  result('{"sky":"clear",  "t": [1.50, -0, 1e-7]}', ID1, "get_weather"), ("a", "Clear.")], [WEATHER]),
    conversation([("u", "Weather?"), calls(call("get_weather", "", ID1)), result("", ID1), ("a", "None."),
                  ("u", "And now?"), calls(call("now", "{}"))], [WEATHER, BARE]),
    conversation([("u", "Weather?"), calls(call("get_weather", '{"place": "\\u00e9\\ud83e\\udd17"}', ID1)),
                  result("plain \"text\"\n\u65e5\u672c", ID1, "get_weather"), ("a", "Odd."), ("u", "Thanks"), ("a", "!")]),
    conversation([("u", "Weather?"), calls(call("get_weather", "not json", ID1)), result("NaN", ID1), ("-", "Hm."),
                  ("u", "Again"), calls(call("get_weather", '{"a": 1, "a": 2, "b": null}', ID2)), result(" [1,2] ", ID2),
                  ("a", "Two.")], [BARE]),
]
TWO_RESULTS = conversation([("u", "Both?"), calls(call("now", "{}", ID1), call("now", '{"z": true}', ID2)),
                            result("1", ID1), result("2", ID2), ("a", "1 and 2.")], [BARE])
TWO_EARLIER = conversation(TWO_RESULTS["turns"] + [("u", "More"), ("a", "No.")])
REFUSED = [
    conversation([("u", "Only a question")]),
    conversation([("u", "q"), ("a", "")]),
    conversation([("u", "q"), ("a", "a"), ("s", "a later rule"), ("u", "q"), ("a", "a")]),
    conversation([("u", "q"), {"role": "assistant", "text": "both", "tool_calls": [call("now", "{}", ID1)]}]),
    conversation([("u", "q"), calls(call("now", "{}", ID1)), ("a", "without a result")]),
    conversation([("u", "q"), calls(call("now", "{}", ID1)), ("u", "q"), ("a", "without a result")]),
    conversation([("u", "q"), result("1", ID1), ("a", "without a call")]),
    conversation([("u", "q"), ("a", "text"), calls(call("now", "{}", ID1))]),
    conversation([("u", "q"), calls(call("now", "{}", ID1)), result("1", ID1), result("2", ID2), ("a", "too many")]),
    conversation([("u", "q"), calls(call("no name!", "{}", ID1)), result("1", ID1), ("a", "a")]),
    conversation([("u", "q"), ("a", "a")], [BARE | {"function": BARE["function"] | {"name": "no name!"}}]),
]
REFUSED_V3 = [
    conversation([("u", "q"), calls(call("now", "{}")), result("1", ID1), ("a", "a")]),
    conversation([("u", "q"), calls(call("now", "{}", "short")), result("1", "short"), ("a", "a")]),
    conversation([("u", "q"), calls(call("now", "{}", ID1)), result("1"), ("a", "a")]),
]

JSON_TEXTS = [
    "", " ", "null", "true", "[]", "{}", "[ ]", "{ }", " [1 , 2]\n", '{"a":1,"b":{"c":[]}}', '{"a":1,"a":2,"b":3,"a":4}',
    "0", "-0", "-0.0", "00", "1.", ".5", "1.0", "1.50", "1e5", "1E+5", "1e16", "123456789012345680000", "1e22", "1e-4",
    "1e-5", "1.5e-7", "0.0001", "0.00001234", "1e400", "-1e400", "1e-400", "5e-324", "1.7976931348623157e308", "0.1",
    "123456789.123456789", "9007199254740993", "1" * 50, "9" * 4300, "NaN", "Infinity", "-Infinity", "nan", '[NaN, -Infinity]',
    '"a\\u00e9\\n\\"\\\\\\/\\b\\f\\r\\t"', '"\\ud83e\\udd17"', '"\\u0000\\u001f\\u007f\\u2028"', '"\u00e9\U0001f917"', '"raw\ttab"',
    "'a'", '{"a" 1}', "[1,]", "{1:2}", "[1 2]", "tru", '"', '"\\x"', '"\\u12"', "1 2", "{\"a\":}", "+1", "1e", "[1e]", "\ufeff1",
]


def write(path, value):
    lines = ",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in value)
    path.write_text(f"[\n{lines}\n]\n")
    print(f"{path}: {len(value)} cases")


def with_control_pieces(names, at, path):
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(BASE.read_bytes())
    pieces = list(model.pieces)
    added = [sentencepiece_model_pb2.ModelProto.SentencePiece(piece=n, score=0, type=CONTROL) for n in names]
    at = len(pieces) if at is None else at
    del model.pieces[:]
    model.pieces.extend(pieces[:at] + added + pieces[at:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


# --- mistral-common


def mistral_message(turn, for_training):
    if turn["role"] == "assistant":
        tool_calls = [
            ToolCall(id=c["id"] or "null", function=FunctionCall(name=c["name"], arguments=c["arguments"]))
            for c in turn.get("tool_calls", [])
        ]
        weight = {"weight": float(turn.get("train", True))} if for_training else {}
        return FinetuningAssistantMessage(content=turn["text"] or None, tool_calls=tool_calls or None, **weight)
    if turn["role"] == "tool":
        ids = {"tool_call_id": turn["tool_call_id"] or None, "name": turn["name"] or None}
        return ToolMessage(content=turn["text"], **ids)
    return {"system": SystemMessage, "user": UserMessage}[turn["role"]](content=turn["text"])


def mistral_request(case, for_training=True):
    tools = [Tool(function=Function(**json.loads(t)["function"])) for t in case.get("tools", [])]
    return ChatCompletionRequest(messages=[mistral_message(t, for_training) for t in case["turns"]], tools=tools or None)


def mistral_training(tokenizer, case):
    """Token ids, and for each whether it is trained: those of answers, their EOS included."""
    request = mistral_request(case)
    tokenizer._chat_completion_request_validator.validate_request(request)
    normalised = tokenizer._instruct_request_normalizer.from_chat_completion_request(request)
    instruct = tokenizer.instruct_tokenizer
    first_user, last_user = instruct.find_first_last_user(normalised)
    ids, trained = instruct.start(), [0]
    for i, message in enumerate(normalised.messages):
        train = 0
        if message.role == "assistant":
            new, train = instruct.encode_assistant_message(message, i < last_user), int(message.weight != 0)
        elif message.role == "tool":
            new = instruct.encode_tool_message(message, i < last_user)[0]
        else:
            new = instruct.encode_user_message(
                message, normalised.available_tools, i == last_user, i == first_user,
                system_prompt=normalised.system_prompt)[0]
        ids += new
        trained += [train] * len(new)
    assert ids == tokenizer.encode_chat_completion(request).tokens
    return case | {"ids": ids, "trained": trained}


def mistral_refusal(tokenizer, case):
    try:
        tokenizer.encode_chat_completion(mistral_request(case))
    except (MistralCommonException, ValueError) as error:
        return case | {"refused": str(error)[:120]}
    raise AssertionError(f"mistral-common takes {case}")


def write_mistral(out, version, model):
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copyfile(model, pathlib.Path(folder) / f"tokenizer.model.v{version}")
        training = MistralTokenizer.from_file(str(path), mode=ValidationMode.finetuning)
        # The normaliser drops a weight unless its message class has one.
        training._instruct_request_normalizer._assistant_message_class = FinetuningAssistantMessage
        serving = MistralTokenizer.from_file(str(path), mode=ValidationMode.test)
        cases = [conversation(c) for c in CONVERSATIONS] + MISTRAL_ONLY + [TWO_EARLIER]
        refused = REFUSED + (REFUSED_V3 if version == 3 else [TWO_RESULTS])
        if version == 3:
            cases.append(TWO_RESULTS)
        prompts = [
            conversation(c) | {"prompt": serving.encode_chat_completion(mistral_request(conversation(c), False)).tokens}
            for c in PROMPTS
        ]
        write(out / f"mistral-v{version}.json", [mistral_training(training, c) for c in cases] + prompts +
              [mistral_refusal(training, c) for c in refused])


# --- transformers

# Template, files of it (the first in full), what ends an answer, whether text is stripped, takes turns in any order
TEXT_TEMPLATES = [
    ("chatml", ["nous-hermes-2-mixtral", "dolphin-2.5-mixtral", "chatml-bare", "chatml-trl", "chatml-unsloth", "chatml-bos",
                "qwen1.5-72b-chat", "qwen1.5-72b-chat-2023"], "<|im_end|>", False, True),
    ("zephyr", ["zephyr-7b-beta", "zephyr-unsloth"], "</s>", False, True),
    ("vicuna", ["vicuna-1.1"], "</s>", False, False),
    ("alpaca", ["alpaca", "alpaca-axolotl", "alpaca-unsloth"], "</s>", False, False),
    ("llama-2", ["llama-2-chat", "llama-2-chat-2023"], " </s>", True, False),
]
OPEN, CLOSE = "\ue000", "\ue001"  # around an answer


def messages(case, marked=False, strip=False):
    def text(turn):
        if turn["role"] != "assistant" or not marked or not turn.get("train", True):
            return turn["text"]
        return OPEN + (turn["text"].strip() if strip else turn["text"]) + CLOSE

    return [{"role": t["role"], "content": text(t)} for t in case["turns"]]


def answers(marked, end):
    """The text without marks, and where in it answers begin and end, their end mark included."""
    text, places = "", []
    for i, part in enumerate(marked.split(OPEN)):
        if i > 0:
            answer, part = part.split(CLOSE)
            places.append((len(text), len(text) + len(answer) + len(end)))
            text += answer
        text += part
    return text, places


def text_case(tokenizer, case, end, strip):
    """Token ids, and for each whether it is trained, as apply_chat_template's assistant mask has it."""
    ids = tokenizer.apply_chat_template(messages(case), tokenize=True, return_dict=False)
    text, places = answers(tokenizer.apply_chat_template(messages(case, True, strip), tokenize=False), end)
    assert text == tokenizer.apply_chat_template(messages(case), tokenize=False), text
    encoded = tokenizer(text, add_special_tokens=False)
    assert encoded.input_ids == ids
    trained = [0] * len(ids)
    for begin, stop in places:
        for i in range(encoded.char_to_token(begin), encoded.char_to_token(stop - 1) + 1):
            trained[i] = 1
    return case | {"ids": ids, "trained": trained}


def write_text_template(out, chat, name, files, end, strip, in_any_order):
    cases = []
    for n, file in enumerate(files):
        tokenizer = AutoTokenizer.from_pretrained(chat)
        tokenizer.chat_template = (TEMPLATES / f"{file}.jinja").read_text()
        some = CONVERSATIONS + (IN_ANY_ORDER if in_any_order else []) if n == 0 else CONVERSATIONS[1:4]
        cases += [text_case(tokenizer, conversation(c), end, strip) | {"file": file} for c in some]
        if n == 0:
            cases += [text_case(tokenizer, conversation(c), end, strip) | {"file": file, "parse": True} for c in SPELLING]
        if file == "chatml-bare":  # has no prompt
            continue
        for c in PROMPTS if n == 0 else PROMPTS[:1]:
            ids = tokenizer.apply_chat_template(messages(conversation(c)), add_generation_prompt=True, return_dict=False)
            cases.append(conversation(c) | {"file": file, "prompt": ids})
    write(out / f"{name}.json", cases)


def write_json_texts(out):
    cases = []
    for text in JSON_TEXTS:
        try:
            cases.append({"text": text, "dump": json.dumps(json.loads(text), ensure_ascii=False)})
        except ValueError:
            cases.append({"text": text})
    write(out / "python_json.json", cases)


# --- what mixtune saves


def check_saved_mistral(out, version):
    """The text that checkpoints get gives mistral-common's tokens in transformers."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(out / "mistral" / "tokenizer.model", folder)
        config = TOKENIZER_CONFIG | {"legacy": False}
        (pathlib.Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
        (pathlib.Path(folder) / "config.json").write_text(MODEL_CONFIG)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (TEMPLATES / f"mistral-v{version}.jinja").read_text()
    common = [case for case in json.loads((out / f"mistral-v{version}.json").read_text()) if "ids" in case]
    for case in common[: len(CONVERSATIONS)]:
        assert tokenizer.apply_chat_template(messages(case), return_dict=False) == case["ids"], case


def write_quickstart(out):
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "examples" / "quickstart" / "pretrained")
    assert tokenizer("Hi").input_ids[0] == tokenizer.bos_token_id
    cases = []
    for c in CONVERSATIONS:
        # Mistral's Jinja text puts an empty line where the system's text is empty, and joins the space that it puts
        # before an answer with those that the answer begins with.
        if ("s", "") in c or any(r == "a" and t != t.strip() for r, t in c):
            continue
        case = conversation(c)
        cases.append(case | {"ids": tokenizer.apply_chat_template(messages(case), return_dict=False)})
    write(out / "quickstart.json", cases)


def write_chatml_model(out):
    """A checkpoint's folder, with its own template."""
    folder = out / "model-chatml"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    records = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    write(out / "model-chatml.json",
          [{"ids": tokenizer.apply_chat_template(r["messages"], return_dict=False)} for r in records])


TOKENIZER_CONFIG = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "add_eos_token": False,
                    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

MODEL_CONFIG = '{"model_type": "mixtral"}\n'  # a folder with another or none gets another tokeniser's code in transformers


def main(out):
    for package in ("mistral-common", "sentencepiece", "transformers", "tokenizers"):
        print(package, importlib.metadata.version(package))
    with_control_pieces(MISTRAL, 3, out / "mistral" / "tokenizer.model")
    with_control_pieces(CHATML, None, out / "chat" / "tokenizer.model")
    (out / "chat" / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")
    (out / "chat" / "config.json").write_text(MODEL_CONFIG)
    write_json_texts(out)
    for version in (2, 3):
        write_mistral(out, version, out / "mistral" / "tokenizer.model")
        check_saved_mistral(out, version)
    for template in TEXT_TEMPLATES:
        write_text_template(out, out / "chat", *template)
    write_quickstart(out)
    write_chatml_model(out)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
